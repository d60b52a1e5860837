"""Find entry points in the metadata of installed packages, cheaply.

importlib.metadata would bring email, csv and zipfile into every process that is
forked later; a service needs no more than a few lines of entry_points.txt.
"""

import os
import sys

GROUP = "acceptutils.programs"


def parse(text: str, group: str = GROUP) -> dict[str, str]:
    """Return name -> "module:function" of one group of an entry_points.txt.

    The format is that of the packaging specification for entry points (an INI file).
    """
    found: dict[str, str] = {}
    inside = False
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            inside = line == f"[{group}]"
        elif inside and "=" in line and not line.startswith(("#", ";")):
            name, _, target = line.partition("=")
            found[name.strip()] = target.strip()
    return found


def installed(paths: list[str] | None = None) -> dict[str, str]:
    """Return the programs that the packages on paths (sys.path) declare.

    As in importing, the first path that declares a name wins. A metadata file that
    cannot be read is passed over: its programs are then executed, not forked.
    """
    found: dict[str, str] = {}
    for path in sys.path if paths is None else paths:
        try:
            names = os.listdir(path or ".")
        except OSError:
            continue
        for name in sorted(names):
            if name.endswith((".dist-info", ".egg-info")):
                try:
                    with open(os.path.join(path, name, "entry_points.txt")) as file:
                        declared = parse(file.read())
                except (OSError, UnicodeDecodeError):
                    continue
                for program, target in declared.items():
                    found.setdefault(program, target)
    return found
