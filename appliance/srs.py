"""The secrets of SRS, and ``postern srs``, which replaces them.

/data/srs/secrets has one in a line, the newest first; only root can read it. So can only
root the copy control/srs_secrets, from which qmail-lspawn takes them.
"""

import os
import secrets
import sys

from appliance import durable, managed, store
from appliance.errors import ApplianceError, complain
from appliance.layout import ROOT, Layout
from appliance.settings import Settings

CONTROL = "srs_secrets"
SIZE = 24  # bytes of chance
KEPT = 3  # addresses live for three weeks: rotated more often than weekly, some die sooner

EXIT_REFUSED = 1
EXIT_USAGE = 100
EXIT_TEMPORARY = 111
USAGE = "usage: postern srs rotate\n"


def content(settings: Settings, places: Layout) -> bytes | None:
    """Return what control/srs_secrets has to say; a first secret is made when none is given.

    Raises:
        OSError: the volume cannot be read or written.
    """
    if not settings.srs:
        return None
    if settings.srs_secrets:
        return _lines(list(settings.srs_secrets))
    return _lines(_stored(places) or _save(places, [_new()]))


def doubt(settings: Settings, domains: tuple[str, ...]) -> str:
    """Return what to say about bounces that would not come back, "" for nothing."""
    domain = settings.srs_domain
    if settings.srs and domain and domain not in (settings.hostname, *domains):
        return f"POSTERN_SRS_DOMAIN: mail for {domain} does not come here"
    return ""


def rotate(places: Layout) -> None:
    """Sign with a new secret from now on; those before it are still accepted.

    Raises:
        ApplianceError, OSError: the volume or the control file cannot be written.
    """
    with store.locked(places):
        kept = _save(places, [_new(), *_stored(places)][:KEPT])
        managed.install(places.control, {CONTROL: _lines(kept)}, [CONTROL], {CONTROL: ROOT.gid})


def _new() -> str:
    return secrets.token_urlsafe(SIZE)


def _stored(places: Layout) -> list[str]:
    try:
        with open(places.srs_secrets) as file:
            return file.read().split()
    except FileNotFoundError:
        return []


def _save(places: Layout, lines: list[str]) -> list[str]:
    durable.replace(places.srs_secrets, _lines(lines), 0o600)
    return lines


def _lines(words: list[str]) -> bytes:
    return "".join(word + "\n" for word in words).encode()


def main(argv: list[str], env: dict[str, str], places: Layout | None = None) -> int:
    """Run ``postern srs rotate``.

    Returns:
        0; 1 when the secrets are not ours to replace; 100 for wrong usage; 111 when
        something could not be read or written.
    """
    from appliance.settings_sources import SettingsError, load

    if argv[1:] != ["rotate"]:
        sys.stderr.write(USAGE)
        return EXIT_USAGE
    places = places or Layout()
    try:
        settings = load(env).settings
        if not settings.srs or settings.srs_secrets:
            why = "POSTERN_SRS_SECRETS has the secrets" if settings.srs else "SRS is off"
            sys.stderr.write(f"postern: {why}\n")
            return EXIT_REFUSED
        if os.path.exists(f"{places.control}/{CONTROL}") and not _is_ours(places):
            sys.stderr.write(f"postern: {places.control}/{CONTROL} is not ours\n")
            return EXIT_REFUSED
        rotate(places)
    except (ApplianceError, SettingsError, OSError) as error:
        complain(error)
        return EXIT_TEMPORARY
    sys.stdout.write("a new secret signs from now on\n")
    return 0


def _is_ours(places: Layout) -> bool:
    with open(f"{places.control}/{CONTROL}", "rb") as file:
        return file.read() == _lines(_stored(places))
