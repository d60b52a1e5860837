"""Render the service directories and control files from the settings.

Everything is rendered in memory first, as path -> File; writing is another matter.
The same settings give the same bytes: nothing depends on time, chance or order.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jinja2

from appliance import layout, metrics_table
from appliance.errors import ApplianceError
from appliance.layout import Layout
from appliance.settings import AUTHENTICATED, IMPLICIT_TLS, SUBMISSION, Settings

TEMPLATES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "templates")
# Where a script cannot be executed itself, this program executes it. See link_scripts.
SCRIPT_RUNNER = os.path.join(TEMPLATES, "libexec", "run")
SCRIPT_SUFFIX = ".execline"

# The program of the image that every program of ours is a link to.
LAUNCHER = "launch"

NOTIFICATION_FD = 3
MAX_DEATH_TALLY = 100
# What a client hears that is one too many; nothing where it expects TLS.
SMTP_REFUSAL = "421 {} too many connections (#4.3.2)"
POP3_REFUSAL = "-ERR too many connections"
REFUSALS = {"mx": SMTP_REFUSAL, "submission": SMTP_REFUSAL, "pop3": POP3_REFUSAL}

# They ask checkpasswordd: the one about passwords, the others about whose mailbox it is.
CHECKPASSWORDS = ("checkpassword", "checkpassword-ldap", "checkpassword-pam", "checkpassword-sql")

# What each server of the setting ucspi is made of; our own is always there.
UCSPI_PROGRAMS: dict[str, tuple[str, ...]] = {
    "postern": (),
    "s6": ("s6-tcpserver", "s6-tcpserver-access", "s6-ucspitlsd", "s6-tlsd"),
    "sslserver": ("sslserver",),
    "tcpserver": ("tcpserver",),
}
HANDSHAKE = 60000  # milliseconds for TLS to start, as under our own server

KILL_MARGIN = 5  # seconds after the grace until s6 kills what should be gone by then
ENV_VALUE_LIMIT = 4095  # bytes; s6-envdir reads no more of a file

BARE_WORD = re.compile(r"[A-Za-z0-9_./:=@%+,-]+\Z")


class File(NamedTuple):
    """A rendered file: its bytes, whether it is a program, and who alone may read it."""

    content: bytes
    executable: bool = False
    group: int | None = None

    @property
    def mode(self) -> int:
        """The permissions: for everybody, unless it is for one group."""
        return (0o755 if self.executable else 0o644) if self.group is None else 0o640


Tree = dict[str, File]


class Tls(NamedTuple):
    """The certificate and key that the services use."""

    cert: str
    key: str


class RenderError(ApplianceError):
    """A value cannot stand where a template puts it."""


def execline_quote(word: str) -> str:
    """Return word so that execlineb(1) reads exactly this one word.

    Raises:
        RenderError: it contains NUL, which no script can.
    """
    if "\0" in word:
        raise RenderError(f"a NUL character in {word!r}")
    if BARE_WORD.match(word):
        return word
    quoted = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{quoted}"'


def _texts(value: object) -> Iterable[str]:
    return map(str, value) if isinstance(value, list | tuple) else (str(value),)


def _execline_words(value: object) -> str:
    """What a template's ``{{ value }}`` becomes in a script: one word, or a list's words."""
    return " ".join(map(execline_quote, _texts(value)))


def _plain_line(value: object) -> str:
    """What a template's ``{{ value }}`` becomes in a file of lines: no second line."""
    text = " ".join(_texts(value))
    if "\n" in text or "\0" in text:
        raise RenderError(f"a line end or NUL in {text!r}")
    return text


def _environment(finalize: Callable[[object], str]) -> jinja2.Environment:
    """Return Jinja that puts every value through finalize and refuses undefined ones."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # scripts and control files, not HTML; finalize quotes
    )


SCRIPTS = _environment(_execline_words)
LINES = _environment(_plain_line)


def installed_mailer(settings: Settings, places: Layout) -> str:
    """Return the mailer of the settings; for auto, the one whose qmail-send is there.

    Where there is none, as on a workstation, it is pyqmail.
    """
    if settings.mailer != "auto":
        return settings.mailer
    program = places.qmail + "/bin/qmail-send"
    ours = os.path.basename(os.path.realpath(program)) == LAUNCHER
    return "pyqmail" if ours or not os.path.lexists(program) else "netqmail"


def is_listening(service: str) -> bool:
    """Whether service takes connections from the network."""
    return service == "mx" or service in AUTHENTICATED


def service_names(settings: Settings) -> list[str]:
    """Return the names of the service directories, helpers included, sorted."""
    names: set[str] = set(settings.active)
    if "queue" in names:  # qmail-queue is ours beside any mailer: another's would be setuid
        names.add("queue-server")
    if names & set(AUTHENTICATED) and settings.checkpassword[0] in CHECKPASSWORDS:
        names.add("checkpasswordd")
    if names & set(AUTHENTICATED):
        names.add("authguardd")
    if settings.dkim and names & set(SUBMISSION):
        names.add("dkimsignd")
    if settings.mail_authentication != "off" and "mx" in names:
        names.add("mailauthd")
    if settings.metrics:
        names.add("metrics")
    return sorted(names)


def service_tree(settings: Settings, mailer: str = "pyqmail") -> Tree:
    """Return the scan directory of s6-svscan.

    Args:
        settings: what to run and how.
        mailer: ``pyqmail`` or ``netqmail``; the latter has no socket for recipient checks.

    Raises:
        RenderError: a value cannot be put into a script.
        jinja2.UndefinedError: a template names what there is not.
    """
    names = service_names(settings)
    context: dict[str, object] = {
        "settings": settings,
        "mailer": mailer,
        "paths": Layout(),
        "ids": layout,
        "tls": certificate(settings),
        "handshake": HANDSHAKE,
        "address": {"0": "127.0.0.1"}.get(settings.bind, settings.bind),
        # These stop first; the others are what they need until their end.
        "first": [name for name in names if is_listening(name) or name == "queue"],
    }
    tree: Tree = {}
    for script in ("SIGTERM", "crash", "finish"):
        tree[f".s6-svscan/{script}"] = _script(f"svscan/{script}.j2", context)
    tree[".s6-svscan/SIGINT"] = tree[".s6-svscan/SIGTERM"]
    for name in names:
        refusal = REFUSALS.get(name, "").format(settings.hostname)
        own = context | {
            "service": name,
            "refusal": refusal,
            "tls_start": tls_start(settings, name),
            "counted": bool(settings.metrics) and name in metrics_table.SERVICES,
        }
        # The others are root until checkpassword becomes the user.
        own |= {"user": layout.QMAILD, "user_name": "qmaild"} if name == "mx" else {"user": None}
        for path, file in _service(name, own, settings):
            tree[f"{name}/{path}"] = file
    return tree


def tls_start(settings: Settings, service: str) -> str:
    """Return how TLS starts in service: ``implicit``, ``starttls``, or "" for not at all."""
    if not (settings.tls and is_listening(service)):
        return ""
    return "implicit" if service in IMPLICIT_TLS else "starttls"


def _service(
    name: str, context: dict[str, object], settings: Settings
) -> Iterator[tuple[str, File]]:
    yield "run", _script(f"service/{name}/run.j2", context)
    yield "finish", _script("base/finish.j2", context)
    yield "log/run", _script("base/log-run.j2", context)
    yield "data/check", _lines(f"service/{name}/check.j2", context)
    if name != "queue":  # qmail-start knows nothing of readiness
        yield "notification-fd", _number(NOTIFICATION_FD)
    yield "timeout-kill", _number((settings.grace + KILL_MARGIN) * 1000)
    yield "max-death-tally", _number(MAX_DEATH_TALLY)
    for variable, value in _variables(f"service/{name}/env.j2", context):
        yield f"env/{variable}", File(f"{value}\n".encode())


def _variables(template: str, context: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Return the variables of an env template, whose lines are NAME=value."""
    for line in LINES.get_template(template).render(context).splitlines():
        if not line:
            continue
        name, equals, value = line.partition("=")
        if not equals or value != value.rstrip() or len(value.encode()) > ENV_VALUE_LIMIT:
            raise RenderError(f"{template}: not a variable that s6-envdir can set: {line!r}")
        yield name, value


def control_tree(settings: Settings, domains: Iterable[str]) -> Tree:
    """Return the control files; one whose template comes out empty is left out.

    Args:
        settings: the settings.
        domains: every domain that mail is received for.
    """
    context: dict[str, object] = {"settings": settings} | _domain_context(
        settings.hostname, domains
    )
    names = [name.removesuffix(".j2") for name in os.listdir(os.path.join(TEMPLATES, "control"))]
    files = {name: _lines(f"control/{name}.j2", context) for name in sorted(names)}
    # A route may hold a password; only qmail-remote, of that group, has to know it.
    files["smtproutes"] = files["smtproutes"]._replace(group=layout.QMAIL)
    return {name: file for name, file in files.items() if file.content.strip()}


DOMAIN_FILES = ("locals", "rcpthosts", "virtualdomains")


def domain_tree(hostname: str, domains: Iterable[str]) -> Tree:
    """Return the control files that change with the domains, for a running appliance."""
    context = _domain_context(hostname, domains)
    return {name: _lines(f"control/{name}.j2", context) for name in DOMAIN_FILES}


def _domain_context(hostname: str, domains: Iterable[str]) -> dict[str, object]:
    return {"hostname": hostname, "domains": sorted(set(domains))}


def certificate(settings: Settings) -> Tls:
    """Return the certificate and key of the settings, or those made at the first start."""
    if settings.tls_cert:
        return Tls(settings.tls_cert, settings.tls_key)
    return Tls(Layout().certificate, Layout().key)


def _script(template: str, context: dict[str, object]) -> File:
    return File(SCRIPTS.get_template(template).render(context).encode(), executable=True)


def _lines(template: str, context: dict[str, object]) -> File:
    return File(LINES.get_template(template).render(context).encode())


def _number(value: int) -> File:
    return File(b"%d\n" % value)


def link_scripts(tree: Tree, runner: str = SCRIPT_RUNNER) -> tuple[Tree, dict[str, str]]:
    """Return tree for a file system that forbids execution (docker's default for tmpfs).

    Returns:
        The files, with each program NAME as a plain NAME.execline; and link -> target,
        for NAME to be a link to a program elsewhere that runs it.
    """
    files = {
        path + SCRIPT_SUFFIX if file.executable else path: file._replace(executable=False)
        for path, file in tree.items()
    }
    return files, {path: runner for path, file in tree.items() if file.executable}


def write(tree: Tree, directory: str) -> None:
    """Write tree below directory, as far as possible with programs that can be executed.

    Raises:
        OSError: something cannot be written.
    """
    os.makedirs(directory, mode=0o755, exist_ok=True)
    links: dict[str, str] = {}
    if os.statvfs(directory).f_flag & os.ST_NOEXEC:
        tree, links = link_scripts(tree)
    for path in sorted(tree.keys() | links.keys()):
        full = os.path.join(directory, path)
        os.makedirs(os.path.dirname(full), mode=0o755, exist_ok=True)
        if path in links:
            os.symlink(links[path], full)
        else:
            _write_file(full, tree[path])


def _write_file(path: str, file: File) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, file.mode)
    with open(fd, "wb") as output:
        output.write(file.content)
        os.fchmod(fd, file.mode)  # whatever the umask is
