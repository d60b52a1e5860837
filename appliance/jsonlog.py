"""``postern log SERVICE``: a logger that writes each line of its input as one JSON object.

Started by s6 for ``log_format=json``, in place of s6-log. The keys: time, service,
message; and ip and session, where a line ends with them (see ucspi.log).
"""

import json
import os
import time

EXIT_USAGE = 100
LINE_LIMIT = 8192  # bytes; what is longer is cut into several lines
READ_SIZE = 65536


def main(argv: list[str], env: dict[str, str]) -> int:
    """Copy standard input to standard output until it ends, line by line."""
    if len(argv) != 2:
        os.write(2, b"usage: postern log SERVICE\n")
        return EXIT_USAGE
    rest = b""
    while received := os.read(0, READ_SIZE):
        complete, rest = split(rest + received)
        _write_all(b"".join(record(argv[1], line, time.time()) for line in complete))
    if rest:
        _write_all(record(argv[1], rest, time.time()))
    return 0


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
