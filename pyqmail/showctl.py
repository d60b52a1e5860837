"""qmail-showctl: say what the control files mean (qmail-showctl(8))."""

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ucspi import control


class File(NamedTuple):
    """One control file: its name, and how its content or absence reads."""

    name: str
    say: Callable[[bytes | None, bytes], Iterator[str]]


def line(
    meaning: str, default: str | None = None
) -> Callable[[bytes | None, bytes], Iterator[str]]:
    """Explain a one-line file; without it the default, ``{me}`` being control/me."""

    def say(content: bytes | None, me: bytes) -> Iterator[str]:
        if content is not None:
            yield f"{meaning} is {text(control.parse_line(content))}."
        elif default is not None:
            yield f"(Default.) {meaning} is {default.format(me=text(me))}."
        else:
            yield "(Default.) Undefined."

    return say


def lines(each: str, none: str) -> Callable[[bytes | None, bytes], Iterator[str]]:
    """Explain a list file, a sentence for each line; without it or its lines one for none."""

    def say(content: bytes | None, me: bytes) -> Iterator[str]:
        entries = control.parse_lines(content or b"")
        if content is None or not entries:
            yield ("(Default.) " if content is None else "") + none.format(me=text(me))
        for entry in entries:
            yield each.format(text(entry))

    return say


def text(raw: bytes) -> str:
    """Return bytes for a person to read."""
    return raw.decode("utf-8", "backslashreplace")


FILES = (
    File("badmailfrom", lines("{} not accepted in MAIL FROM.", "Any MAIL FROM is allowed.")),
    File("badrcptto", lines("{} not accepted in RCPT TO.", "Any RCPT TO is allowed.")),
    File("bouncefrom", line("Bounce user name", "MAILER-DAEMON")),
    File("bouncehost", line("Bounce host name", "{me}")),
    File("concurrencylocal", line("Local concurrency", "10")),
    File("concurrencyremote", line("Remote concurrency", "20")),
    File("dane", line("Trust in the resolver's word on DNSSEC", "auto")),
    File("databytes", line("SMTP DATA limit in bytes (0: none)", "0")),
    File("defaultdomain", line("Default domain name", "{me}")),
    File("defaulthost", line("Default host name", "{me}")),
    File("doublebouncehost", line("2B recipient host", "{me}")),
    File("doublebounceto", line("2B recipient user", "postmaster")),
    File("envnoathost", line("Presumed domain name", "{me}")),
    File("fixsmtpio", lines("Rule: {}", "fixsmtpio changes nothing.")),
    File("helohost", line("SMTP client HELO host name", "{me}")),
    File("idhost", line("Message-ID host name", "{me}")),
    File("localiphost", line("Local IP address becomes", "{me}")),
    File("locals", lines("Messages for {} are delivered locally.", "Messages for {me} are local.")),
    File("me", line("My name")),
    File(
        "moreipme",
        lines("{} is one of my addresses.", "No addresses but the interfaces' are mine."),
    ),
    File("morercpthosts", lines("SMTP clients may send messages to {}.", "No effect.")),
    File("mtastscache", line("Directory of MTA-STS policies", "none: MTA-STS is not used")),
    File("ofmipfilters", lines("Filter: {}", "Submitted messages are not filtered.")),
    File("percenthack", lines("user%host@{} is user@host.", "The percent hack is not allowed.")),
    File("plusdomain", line("Plus domain name", "{me}")),
    File("pop3capabilities", lines("Capability: {}", "No capabilities.")),
    File("pop3greeting", line("POP3 greeting", "{me}")),
    File("qmqpservers", lines("QMQP server: {}.", "No QMQP servers.")),
    File("queuelifetime", line("Message lifetime in the queue in seconds", "604800")),
    File(
        "rcpthosts",
        lines("SMTP clients may send messages to {}.", "SMTP clients may send to any recipient."),
    ),
    File("rcptchecks", lines("Recipient check: {}", "No further recipient checks.")),
    File("resolvers", lines("SMTP client asks {} for names.", "Name servers are the system's.")),
    File("rewrite", lines("Rewriting rule: {}", "No rewriting rules.")),
    File("smtpcapabilities", lines("Capability: {}", "No capabilities.")),
    File("smtpfilters", lines("Filter: {}", "Received messages are not filtered.")),
    File("smtpgreeting", line("SMTP greeting: 220", "{me}")),
    File("smtproutes", lines("SMTP route: {}", "No artificial SMTP routes.")),
    File("srs_domain", line("Domain of forwarded mail's senders", "none: they stay the same")),
    File("srs_secrets", lines("A secret.", "No secrets.")),
    File("timeoutconnect", line("SMTP client connection timeout in seconds", "60")),
    File("timeoutpop3d", line("POP3 server data timeout in seconds", "1200")),
    File("timeoutremote", line("SMTP client data timeout in seconds", "1200")),
    File("timeoutsmtpd", line("SMTP server data timeout in seconds", "1200")),
    File("tlsauthorities", line("File of more TLS authorities", "control/tlsauthorities.pem")),
    File("tlsdestinations", lines("TLS policy: {}", "TLS is used where it is offered.")),
    File("virtualdomains", lines("Virtual domain: {}", "No virtual domains.")),
)
# Files whose lines may hold passwords, and compiled or generated ones: named, never shown.
UNSHOWN = {
    "smtproutes": "SMTP routes, with {} lines.",
    "srs_secrets": "Secrets of forwarded mail's senders, {} of them.",
    "morercpthosts.cdb": "",
    "tlsauthorities.pem": "",
    ".postern": "",
}


def main(argv: list[str], env: dict[str, str]) -> int:
    """Print the meaning of every control file; 111 when the qmail home cannot be read."""
    try:
        control.enter_home(env)
        home = os.getcwd()
        present = set(os.listdir("control"))
        me = control.read_line("me") or b"undefined"
        output = [f"qmail home directory: {home}."]
        for file in FILES:
            output.append(f"\n{file.name}:")
            output.extend(explain(file, me))
        known = {file.name for file in FILES} | set(UNSHOWN)
        output.extend(
            f"\n{name}: I have no idea what this file does." for name in sorted(present - known)
        )
    except (control.ControlError, OSError) as error:
        output = [f"qmail-showctl: {error}"]
        write(2, output)
        return 111
    write(1, output)
    return 0


def explain(file: File, me: bytes) -> Iterator[str]:
    """Yield the sentences for one control file.

    Raises:
        ControlError: it cannot be read, unless only because it holds secrets.
    """
    try:
        content = control.read_file(file.name)
    except control.ControlError:
        if file.name in UNSHOWN:
            yield "Not readable by this user."
            return
        raise
    if content is not None and file.name in UNSHOWN:
        yield UNSHOWN[file.name].format(len(control.parse_lines(content)))
        return
    yield from file.say(content, me)


def write(descriptor: int, output: list[str]) -> None:
    """Write lines, as many bytes at a time as the descriptor takes."""
    data = ("\n".join(output) + "\n").encode("utf-8", "surrogateescape")
    while data:
        data = data[os.write(descriptor, data) :]
