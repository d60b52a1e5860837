"""``postern log [[-t] -c FILE] SERVICE``: a logger, in place of s6-log.

It writes each line of its input as one JSON object, whose keys are time, service and
message; and ip and session, where a line ends with them (see ucspi.log). With -c it counts
what the lines tell for metrics, and keeps the counts in FILE; see metrics_count. With -t
it then puts the service's name before the line instead.
"""

import json
import os
import time

EXIT_USAGE = 100
LINE_LIMIT = 8192  # bytes; what is longer is cut into several lines
READ_SIZE = 65536


def main(argv: list[str], env: dict[str, str]) -> int:
    """Copy standard input to standard output until it ends, line by line."""
    match argv[1:]:
        case [service] if not service.startswith("-"):
            log(service, text=False, counts="")
        case ["-t", "-c", counts, service]:
            log(service, text=True, counts=counts)
        case ["-c", counts, service]:
            log(service, text=False, counts=counts)
        case _:
            os.write(2, b"usage: postern log [[-t] -c FILE] SERVICE\n")
            return EXIT_USAGE
    return 0


def log(service: str, *, text: bool, counts: str) -> None:
    """Copy lines until their end, in the form of text or JSON.

    Args:
        service: whose lines they are.
        text: whether it is text.
        counts: the file to keep counts in, "" for none.
    """
    publisher = None
    if counts:
        from appliance.metrics_count import Publisher

        publisher = Publisher(service, counts, 0)
    prefix = service.encode() + b": "
    rest = b""
    while True:
        if publisher is not None:
            publisher.wait()
        received = os.read(0, READ_SIZE)
        complete, rest = split(rest + received)
        if rest and not received:
            complete = [*complete, rest]
        if text:
            _write_all(b"".join([b"%s%s\n" % (prefix, line) for line in complete]))
        else:
            _write_all(b"".join(record(service, line, time.time()) for line in complete))
        if publisher is not None:
            publisher.count(complete)
        if not received:
            break
    if publisher is not None:
        publisher.close()


def split(buffer: bytes) -> tuple[list[bytes], bytes]:
    """Return the complete lines in buffer and what is left of it."""
    *lines, rest = buffer.split(b"\n")
    while len(rest) > LINE_LIMIT:
        lines.append(rest[:LINE_LIMIT])
        rest = rest[LINE_LIMIT:]
    return lines, rest


def record(service: str, line: bytes, now: float) -> bytes:
    """Return the JSON object of one line, with its line end."""
    message = line.decode("utf-8", "replace")
    seconds, milliseconds = divmod(int(now * 1000), 1000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    facts = {"time": f"{stamp}.{milliseconds:03}Z", "service": service}
    for key in ("session", "ip"):
        before, middle, value = message.rpartition(f" {key}=")
        if middle and value and " " not in value:
            message, facts[key] = before, value
    return json.dumps(facts | {"message": message}).encode() + b"\n"


def _write_all(content: bytes) -> None:
    while content:
        content = content[os.write(1, content) :]
