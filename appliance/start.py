"""``postern start``: make everything ready and become s6-svscan, the first process.

What it does, in this order; the first that fails ends it with one line:
settings (exit 78), the container's rights, the volume, the certificate, accounts and
what is made from them, control files, service directories.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time

from appliance import (
    data,
    ground,
    jsonlog,
    managed,
    publish,
    render,
    restore_volume,
    srs,
    store,
    version,
)
from appliance.errors import ApplianceError, complain
from appliance.ground import GroundError
from appliance.layout import METRICS, ROOT, Layout, Owner
from appliance.settings import Settings
from appliance.settings_sources import SettingsError, load
from ucspi import chain

# What the image has only if it was asked for, by the program that does not work without it:
# the name of a module, and that of the extra.
LIBRARIES = {"checkpassword-ldap": ("ldap", "ldap")}

EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h
EXIT_USAGE = 100
EXIT_FATAL = 111
EXIT_STOPPED = 128 + signal.SIGTERM


def say(settings: Settings, text: str) -> None:
    """Write one line to the container's log, in the format of the others."""
    if settings.log_format == "json":
        line = jsonlog.record("postern", text.encode(), time.time()).decode()
    else:
        line = f"postern: {text}\n"
    sys.stdout.write(line)
    sys.stdout.flush()


def main(argv: list[str], env: dict[str, str]) -> int:
    """Run ``postern start``; there is no return but on failure.

    Returns:
        78 when a setting is wrong, 111 when the container is not as it must be; the
        reason is on standard error.
    """
    if len(argv) > 1:
        sys.stderr.write("usage: postern start\n")
        return EXIT_USAGE
    # The first process of a container ignores signals that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(EXIT_STOPPED))
    os.umask(0o022)
    try:
        settings = load(env).settings
        places = Layout()
        ground.check_rights(settings)
        ground.check_alone(places)
        ground.check_writable(places)
        if said := restore_volume.settle(places):
            say(settings, said)
        prepare(settings, places)
    except SettingsError as error:
        complain(error)
        return EXIT_CONFIG
    except (ApplianceError, OSError) as error:
        complain(error)
        return EXIT_FATAL
    say(
        settings,
        f"{version.installed()}, {settings.hostname}: starting {' '.join(settings.active)}",
    )
    return become_svscan(places)


def prepare(settings: Settings, places: Layout) -> None:
    """Make volume, control files and service directories as the settings want them.

    Raises:
        ApplianceError, OSError: it cannot be done; each text names what is in the way.
    """
    if not os.path.lexists(places.qmail + "/bin/qmail-send"):
        raise GroundError(f"{places.qmail}/bin/qmail-send: there is no mailer in this image")
    check_ucspi(settings, places)
    check_password_program(settings, places)
    if doubt := ground.doubt_about_memory():
        say(settings, doubt)
    data.prepare_volume(places)
    data.prepare_runtime(places)
    prepare_queue(places)
    if settings.refused:
        say(
            settings,
            f"TLS IS OFF: not running {' '.join(settings.refused)}: no passwords without TLS",
        )
    if settings.impossible:
        say(
            settings,
            f"{settings.ucspi} CANNOT BEGIN WITH TLS: not running {' '.join(settings.impossible)}",
        )
    if settings.tls:
        say_certificate(settings, places)
    with store.locked(places):
        accounts = store.load(places)
        wanted = accounts.with_domains(*settings.domains)
        if wanted != accounts or not os.path.exists(places.store):
            store.save(places, wanted)
        make_signing_keys(settings, places, wanted.domains)
        install_control(settings, places, wanted.domains)
        for doubt in (
            doubt_about_postmaster(settings, wanted),
            srs.doubt(settings, wanted.domains),
        ):
            if doubt:
                say(settings, doubt)
        publish.publish(places, wanted, publish.postmaster_instruction(settings.postmaster))
    if not wanted.accounts:
        say(settings, "no accounts yet: docker exec -it CONTAINER postern user add NAME@DOMAIN")
    clear(places.services)
    mailer = render.installed_mailer(settings, places)
    render.write(render.service_tree(settings, mailer), places.services)
    if settings.metrics:
        show_supervision(settings, places)


def show_supervision(settings: Settings, places: Layout) -> None:
    """Let the group metrics read what s6 knows of the services.

    s6 makes these directories where they are not there, for root alone; s6-svperms would
    change them later in the same way.
    """
    for name in render.service_names(settings):
        directory = data.Directory(
            f"{places.services}/{name}/supervise", 0o750, Owner(0, METRICS.gid)
        )
        data.ensure(directory)


def check_ucspi(settings: Settings, places: Layout) -> None:
    """Check that the server of the settings is in this image.

    Raises:
        GroundError: one of its programs is not.
    """
    path = f"{places.program_path}:{places.command}"
    for program in render.UCSPI_PROGRAMS[settings.ucspi]:
        if not shutil.which(program, path=path):
            raise GroundError(
                f"POSTERN_UCSPI={settings.ucspi}: there is no {program} in this image; "
                "build it with UCSPI_IMAGE"
            )


def check_password_program(settings: Settings, places: Layout) -> None:
    """Check that what is to check passwords is in this image, and what it needs.

    Raises:
        SettingsError: there is no such program.
        GroundError: a library that it needs is not there.
    """
    program = settings.checkpassword[0]
    if program in render.CHECKPASSWORDS:
        needed, extra = LIBRARIES.get(program, ("", ""))
        if needed and not importlib.util.find_spec(needed):
            raise GroundError(
                f"POSTERN_CHECKPASSWORD={program}: what it needs is not in this image; "
                f"build it with CHECKPASSWORD={extra}"
            )
    elif not shutil.which(program, path=f"{places.program_path}:{places.command}"):
        raise SettingsError(
            f"POSTERN_CHECKPASSWORD: there is no program {program} in this container"
        )


def doubt_about_postmaster(settings: Settings, accounts: store.Store) -> str:
    """Return what to say about where mail to the postmaster goes, "" for nothing."""
    to = settings.postmaster
    if not to:
        return f"no POSTERN_POSTMASTER: mail to postmaster stays in {Layout().alias}/Maildir"
    ours = to.rpartition("@")[2] in accounts.domains
    if ours and to not in accounts.accounts and to not in accounts.aliases:
        return f"POSTERN_POSTMASTER: {to} is neither account nor alias yet"
    return ""


def prepare_queue(places: Layout) -> None:
    """Make the queue directory with the installed tool.

    Raises:
        GroundError: the tool failed; what it said is on standard error.
    """
    argv = ["qmail-queue-prepare", places.queue]
    try:
        done = subprocess.run(argv, env={"PATH": places.program_path}, check=False, timeout=600)
    except FileNotFoundError:
        raise GroundError(f"{argv[0]}: no such program in {places.program_path}") from None
    except subprocess.TimeoutExpired:
        raise GroundError(f"{argv[0]}: not done after ten minutes") from None
    if done.returncode:
        raise GroundError(f"{places.queue}: cannot be prepared (exit {done.returncode})")


def say_certificate(settings: Settings, places: Layout) -> None:
    """Have a usable certificate, and say which it is.

    Raises:
        SettingsError: the given one cannot be used.
        GroundError: that on the volume cannot be used.
    """
    from appliance import certificate

    if settings.tls_cert:
        try:
            doubt = certificate.check(render.certificate(settings))
        except certificate.CertificateError as error:
            raise SettingsError(f"POSTERN_TLS_CERT, POSTERN_TLS_KEY: {error}") from error
        say(settings, f"TLS: WARNING: {doubt}" if doubt else f"TLS: using {settings.tls_cert}")
        return
    try:
        say(settings, certificate.ensure_self_signed(places, settings.hostname).notice)
    except certificate.CertificateError as error:
        raise GroundError(str(error)) from error


def make_signing_keys(settings: Settings, places: Layout, domains: tuple[str, ...]) -> None:
    """Make a key for each domain that has none, where mail is to be signed, and say so.

    Raises:
        DkimError, DataError, OSError: it cannot be made.
    """
    if "dkimsignd" not in render.service_names(settings):
        return
    from appliance import dkim

    for domain in dkim.ensure(places, domains, settings.dkim):
        say(settings, f"DKIM: made a key for {domain}; its record for the DNS: postern dns")


def install_control(settings: Settings, places: Layout, domains: tuple[str, ...]) -> None:
    """Write the control files that nobody mounted or changed.

    Raises:
        GroundError: the directory cannot be written and lacks some; the text names them.
    """
    if os.stat(places.control).st_uid == 0 and os.access(places.control, os.W_OK):
        # A tmpfs comes with mode 1777 when nothing else is asked for.
        os.chmod(places.control, 0o755)
    files = render.control_tree(settings, domains)
    secrets = srs.content(settings, places)
    if secrets is not None:
        files[srs.CONTROL] = render.File(secrets, group=ROOT.gid)
    try:
        outcome = managed.install(
            places.control,
            {name: file.content for name, file in files.items()},
            groups={name: file.group for name, file in files.items() if file.group is not None},
        )
    except managed.ManagedError as error:
        raise GroundError(
            f"{error}: add --tmpfs {places.control}; files can be mounted in it one by one"
        ) from error
    if outcome.kept:
        say(settings, f"control files that are not ours stay as they are: {' '.join(outcome.kept)}")


def clear(directory: str) -> None:
    """Remove what an earlier start of this container left at directory."""
    if os.path.lexists(directory):
        shutil.rmtree(directory)


def become_svscan(places: Layout) -> int:
    """Execute s6-svscan with nothing but PATH in its environment; return on failure."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.chdir("/")
    return chain.execute(["s6-svscan", "-t", "0", places.services], {"PATH": "/usr/bin:/bin"})
