"""ofmipname: build a name-address database for ofmipd (ofmipname(8) of mess822)."""

import os
from collections.abc import Iterator

from ucspi import cdb, log

EXIT_USAGE = 100
EXIT_TEMPORARY = 111


def parse(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and data for each line ``key:name:address:``; others are passed over."""
    for line in text.split(b"\n"):
        fields = line.split(b":", 3)
        if len(fields) == 4 and not line.startswith(b"#"):
            key, name, address, _ = fields
            yield key, name + b"\0" + address


def main(argv: list[str], env: dict[str, str]) -> int:
    """Run ``ofmipname name.cdb name.tmp``: read the table on descriptor 0, replace name.cdb."""
    if len(argv) != 3:
        log.event(env, "usage: ofmipname name.cdb name.tmp")
        return EXIT_USAGE
    target, temporary = argv[1:]
    try:
        with open(0, "rb", closefd=False) as table:
            records = list(parse(table.read()))
        cdb.write(temporary, records)
        os.rename(temporary, target)
    except OSError as error:
        reason = f"{error.filename or 'standard input'}: {error.strerror}"
    except ValueError as error:
        reason = str(error)
    else:
        return 0
    log.event(env, f"ofmipname: fatal: unable to create {target}: {reason}")
    return EXIT_TEMPORARY
