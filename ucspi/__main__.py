"""Run one of the registered programs: ``python -m ucspi PROGRAM [args ...]``."""

import os
import sys

from ucspi import chain


def main() -> int:
    """Run the program named by the first argument; 100 when there is none of that name."""
    argv = sys.argv[1:]
    if not argv or chain.program_name(argv[0]) is None:
        sys.stderr.write("usage: python -m ucspi program [args ...]\n")
        return 100
    return chain.run(argv, dict(os.environ))


if __name__ == "__main__":
    os._exit(main())
