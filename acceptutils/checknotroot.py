"""checknotroot: go on only as somebody.

checknotroot prog [ args ... ]
"""

import os

from ucspi import chain, log

EXIT_REFUSED = 1  # to authup the same as a wrong password


def main(argv: list[str], env: dict[str, str]) -> int:
    """Become the rest of the command line, unless this process is root or could be again.

    The real, the effective and the saved uid count: a program that had dropped only one
    of them could take root back.
    """
    if not argv[1:]:
        log.event(env, "checknotroot: usage: checknotroot prog")
        return EXIT_REFUSED
    if 0 in os.getresuid():
        log.event(env, "checknotroot: WAS RUNNING AS ROOT, TERMINATING")
        return EXIT_REFUSED
    return chain.run(argv[1:], env)
