"""qmail-showctl: say what the control files mean (qmail-showctl(8)), in netqmail's words."""

import os
from collections.abc import Callable, Iterator

from pyqmail.local.dotfile import WRITABLE
from pyqmail.queue import ids, layout
from pyqmail.send.spawnprotocol import SPAWN_LIMIT
from ucspi import control

DEFAULT = "(Default.) "
TROUBLE = "Oops! Trouble reading this file."
MESSAGES_TO = "SMTP clients may send messages to recipients at "
ME = "me"  # as a default: the content of control/me

# From a file's content, or None, and control/me to lines; the first follows the name.
Say = Callable[[bytes | None, str], Iterator[str]]


def number(default: int, before: str, after: str = "") -> Say:
    """Explain a file with a number in it, by what stands before and after the number."""

    def say(content: bytes | None, me: str) -> Iterator[str]:
        if content is None:
            yield f"{DEFAULT}{before}{default}{after}."
        elif control.parse_line(content).isdigit():
            yield f"{before}{int(control.parse_line(content))}{after}."
        else:
            yield f"Oops! Not a number: {text(control.parse_line(content))}."

    return say


def string(default: str, before: str) -> Say:
    """Explain a file of one line; ME is the default where control/me is."""

    def say(content: bytes | None, me: str) -> Iterator[str]:
        if content is None:
            yield f"{DEFAULT}{before}{me if default is ME else default}."
        else:
            yield f"{before}{text(control.parse_line(content))}."

    return say


def listing(default: str, before: str, after: str = "") -> Say:
    """Explain a list, by what stands before and after each entry."""

    def say(content: bytes | None, me: str) -> Iterator[str]:
        if content is None:
            yield DEFAULT + default
            return
        yield ""
        for entry in control.parse_lines(content):
            yield f"{before}{text(entry)}{after}"

    return say


def routes(content: bytes | None, me: str) -> Iterator[str]:
    """Explain smtproutes; there may be passwords in it, which are not shown."""
    if content is None:
        yield DEFAULT + "No artificial SMTP routes."
        return
    yield ""
    for entry in control.parse_lines(content):
        way, *login = entry.split()
        yield f"SMTP route: {text(way)}{' with a login' if login else ''}"


def secret(what: str) -> Say:
    """Name a file that is not to be shown."""

    def say(content: bytes | None, me: str) -> Iterator[str]:
        yield DEFAULT + "None." if content is None else what

    return say


def more_hosts(content: bytes | None, me: str) -> Iterator[str]:
    """Explain morercpthosts, which counts only beside rcpthosts."""
    if control.read_file("rcpthosts") is not None:
        hosts = listing("No effect.", MESSAGES_TO, ".")
    else:
        hosts = listing(
            "No rcpthosts; morercpthosts is irrelevant.",
            "No rcpthosts; doesn't matter that morercpthosts has ",
            ".",
        )
    yield from hosts(content, me)


def compiled_hosts(content: bytes | None, me: str) -> Iterator[str]:
    """Say whether morercpthosts.cdb is what qmail-newmrh would make of morercpthosts."""
    source, made = (_changed("morercpthosts" + suffix) for suffix in ("", ".cdb"))
    if source is None and made is None:
        yield DEFAULT + "No effect."
    elif source is None:
        yield "Oops! morercpthosts.cdb exists but morercpthosts doesn't."
    elif made is None:
        yield "Oops! morercpthosts exists but morercpthosts.cdb doesn't."
    elif source > made:
        yield "Oops! morercpthosts.cdb is older than morercpthosts."
    else:
        yield "Modified recently enough; hopefully up to date."


def _changed(name: str) -> float | None:
    try:
        return os.stat("control/" + name).st_mtime
    except OSError:
        return None


def text(raw: bytes) -> str:
    """Return bytes for a person to read: what a terminal might obey is a question mark."""
    return "".join(chr(code) if 32 <= code <= 126 else "?" for code in raw)


FILES: dict[str, Say] = {
    "badmailfrom": listing("Any MAIL FROM is allowed.", "", " not accepted in MAIL FROM."),
    "badrcptto": listing("Any RCPT TO is allowed.", "", " not accepted in RCPT TO."),
    "bouncefrom": string("MAILER-DAEMON", "Bounce user name is "),
    "bouncehost": string(ME, "Bounce host name is "),
    "checkpassword-ldap": secret("How checkpassword-ldap asks; not shown."),
    "checkpassword-ldap-password": secret("A password."),
    "checkpassword-sql": secret("How checkpassword-sql asks; not shown."),
    "checkpassword-sql-password": secret("A password."),
    "concurrencylocal": number(10, "Local concurrency is "),
    "concurrencyremote": number(20, "Remote concurrency is "),
    "dane": string("auto", "Trust in the resolver's word on DNSSEC is "),
    "databytes": number(0, "SMTP DATA limit is ", " bytes"),
    "defaultdomain": string(ME, "Default domain name is "),
    "defaulthost": string(ME, "Default host name is "),
    "doublebouncehost": string(ME, "2B recipient host: "),
    "doublebounceto": string("postmaster", "2B recipient user: "),
    "envnoathost": string(ME, "Presumed domain name is "),
    "fixsmtpio": listing("fixsmtpio changes nothing.", "Rule: "),
    "helohost": string(ME, "SMTP client HELO host name is "),
    "idhost": string(ME, "Message-ID host name is "),
    "localiphost": string(ME, "Local IP address becomes "),
    "locals": listing(
        "Messages for me are delivered locally.", "Messages for ", " are delivered locally."
    ),
    "me": string("undefined! Uh-oh", "My name is "),
    "moreipme": listing("No additional IP addresses are me.", "IP address ", " is me."),
    "morercpthosts": more_hosts,
    "morercpthosts.cdb": compiled_hosts,
    "mtastscache": string("none: MTA-STS is not used", "Directory of MTA-STS policies is "),
    "ofmipfilters": listing("Submitted messages are not filtered.", "Filter: "),
    "percenthack": listing(
        "The percent hack is not allowed.", "The percent hack is allowed for user%host@", "."
    ),
    "plusdomain": string(ME, "Plus domain name is "),
    "pop3capabilities": listing("authup pop3 refuses to run.", "Capability: "),
    "pop3greeting": string(ME, "POP3 greeting: +OK "),
    "qmqpservers": listing("No QMQP servers.", "QMQP server: ", "."),
    "queuelifetime": number(604800, "Message lifetime in the queue is ", " seconds"),
    "rcpthosts": listing("SMTP clients may send messages to any recipient.", MESSAGES_TO, "."),
    "rcptchecks": listing("No further recipient checks.", "Recipient check: "),
    "resolvers": listing("Name servers are the system's.", "SMTP client asks ", " for names."),
    "rewrite": listing("No rewriting rules.", "Rewriting rule: "),
    "smtpcapabilities": listing("authup smtp refuses to run.", "Capability: "),
    "smtpfilters": listing("Received messages are not filtered.", "Filter: "),
    "smtpgreeting": string(ME, "SMTP greeting: 220 "),
    "smtproutes": routes,
    "srs_domain": string("none: they stay the same", "Domain of forwarded mail's senders is "),
    "srs_secrets": secret("What forwarded mail's senders are signed with; not shown."),
    "timeoutconnect": number(60, "SMTP client connection timeout is ", " seconds"),
    "timeoutpop3d": number(1200, "POP3 server data timeout is ", " seconds"),
    "timeoutremote": number(1200, "SMTP client data timeout is ", " seconds"),
    "timeoutsmtpd": number(1200, "SMTP server data timeout is ", " seconds"),
    "tlsauthorities": string("control/tlsauthorities.pem", "File of more TLS authorities is "),
    "tlsdestinations": listing("TLS is used where it is offered.", "TLS policy: "),
    "virtualdomains": listing("No virtual domains.", "Virtual domain: "),
}
# What belongs to one of the files above, or is nobody's to read.
BESIDE = frozenset({".postern", "tlsauthorities.pem"})


def built_in(home: str) -> Iterator[str]:
    """Yield what is not in control files."""
    yield f"qmail home directory: {home}."
    yield "user-ext delimiter: -."
    yield f"paternalism (in decimal): {WRITABLE}."
    yield f"silent concurrency limit: {SPAWN_LIMIT}."
    yield f"subdirectory split: {layout.SPLIT}."
    known = ids.lookup()
    users = (*known.users[:3], 0, *known.users[3:])
    yield f"user ids: {', '.join(map(str, users))}."
    yield f"group ids: {known.nofiles}, {known.group}."


def explain(name: str, me: str) -> str:
    """Return the lines for one control file."""
    try:
        content = control.read_file(name)
        return "\n".join(FILES[name](content, me))
    except control.ControlError:
        return TROUBLE


def report() -> Iterator[str]:
    """Yield everything; the working directory is the qmail home.

    Raises:
        ControlError: control/me or the directory cannot be read.
    """
    yield from built_in(os.getcwd())
    try:
        present = os.listdir("control")
    except OSError as error:
        raise control.ControlError(f"unable to read control: {error.strerror}") from error
    line = control.read_line("me")
    me = "undefined! Uh-oh" if line is None else text(line)
    for name in FILES:
        yield f"\n{name}: {explain(name, me)}"
    for name in sorted(set(present) - set(FILES) - BESIDE):
        yield f"\n{name}: I have no idea what this file does."


def main(argv: list[str], env: dict[str, str]) -> int:
    """Print the meaning of every control file.

    Returns:
        0; 111 when the qmail home, its control files as a whole or control/me cannot be read.
    """
    try:
        control.enter_home(env)
        output, descriptor, status = list(report()), 1, 0
    except control.ControlError as error:
        output, descriptor, status = [f"qmail-showctl: {error}"], 2, 111
    data = ("\n".join(output) + "\n").encode("utf-8", "surrogateescape")
    while data:
        data = data[os.write(descriptor, data) :]
    return status
