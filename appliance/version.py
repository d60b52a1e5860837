"""``postern version``."""

import sys


def main(argv: list[str], env: dict[str, str]) -> int:
    """Print the version of the installed package."""
    sys.stdout.write(f"postern {installed()}\n")
    return 0


def installed() -> str:
    """Return the version from the package's metadata, "unknown" in a bare source tree."""
    from importlib import metadata

    try:
        return metadata.version("postern")
    except metadata.PackageNotFoundError:
        return "unknown"
