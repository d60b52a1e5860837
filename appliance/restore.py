"""``postern restore``: a volume from a backup on standard input, whole or not at all."""

import argparse
import os
import signal
import sys

from appliance import ground, restore_archive, restore_volume
from appliance.backup_format import FormatError
from appliance.backup_progress import Progress
from appliance.errors import ApplianceError, complain
from appliance.layout import Layout
from appliance.store import StoreError

EXIT_REFUSED = 1
EXIT_USAGE = 100
EXIT_TEMPORARY = 111

DESCRIPTION = """\
Put a backup that comes from standard input onto the data volume, while the services do not
run. It is unpacked beside what is there and checked to its end before anything changes.
"""
EXITS = """\
exit status: 0 done; 1 refused: the volume is not empty, or that is no backup, or not a whole
one; 100 wrong usage, or standard input is a terminal; 111 the volume could not be written.
But for 0, the volume is as it was.
"""


class RestoreError(ApplianceError):
    """The backup is not to be restored here; the text says why."""


def main(argv: list[str], env: dict[str, str], places: Layout | None = None) -> int:
    """Run ``postern restore [--replace]``.

    Returns:
        0; 1 when the volume or the backup is refused; 100 for wrong usage; 111 when the
        volume could not be written.
    """
    parser = argparse.ArgumentParser(
        prog="postern restore",
        description=DESCRIPTION,
        epilog=EXITS,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="throw away what is on the volume, once the backup is known to be whole",
    )
    try:
        given = parser.parse_args(argv[1:])
    except SystemExit as leaving:
        return EXIT_USAGE if leaving.code else 0
    if os.isatty(0):
        sys.stderr.write("postern: no backup from a terminal: restore < FILE\n")
        return EXIT_USAGE
    # The first process of a container ignores signals that it does not handle.
    signal.signal(signal.SIGTERM, _interrupt)
    os.umask(0o022)
    try:
        restore(places or Layout(), given.replace)
    except (RestoreError, FormatError, StoreError, restore_volume.VolumeError) as error:
        complain(error)
        return EXIT_REFUSED
    except (ApplianceError, OSError) as error:
        complain(error)
        return EXIT_TEMPORARY
    sys.stdout.write("restored\n")
    return 0


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def restore(places: Layout, replace: bool) -> None:
    """Restore what comes from standard input.

    Args:
        places: where.
        replace: whether the volume may hold something, which is thrown away then.

    Raises:
        RestoreError, VolumeError: not on this volume, or not now.
        FormatError, StoreError: not this backup.
        ApplianceError, OSError: the volume cannot be written.
    """
    if os.geteuid():
        raise RestoreError("must be run as root, in the container")
    if not os.path.isdir(places.data):
        raise RestoreError(f"{places.data}: does not exist: mount a volume there")
    ground.check_alone(places)
    with restore_volume.alone(places), restore_volume.stopped(places):
        is_half_done = os.path.lexists(f"{places.data}/{restore_volume.WHOLE}")
        if said := restore_volume.finish(places):
            sys.stderr.write(f"postern: {said}\n")
        if restore_volume.holds_something(places) and not (replace or is_half_done):
            raise RestoreError(
                f"{places.data} is not empty; --replace would throw away what is there"
            )
        stage = restore_volume.stage(places)
        progress = Progress()
        try:
            os.mkdir(stage.root, 0o700)
            restore_archive.unpack(sys.stdin.buffer, stage, progress)
            restore_volume.commit(places)
        finally:
            progress.end()
            # Nothing, once it is committed.
            restore_volume.discard(stage.root)
