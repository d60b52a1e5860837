"""``postern rules check|try FILE``: examine a rule file of fixsmtpio.

Only fixsmtpio knows its rules; its own tool does the work.
"""

import sys

from ucspi import chain

EXIT_USAGE = 100
USAGE = """\
usage: postern rules check FILE      say line and column of a mistake
       postern rules try FILE        replay a dialogue and show what each rule changed
"""


def main(argv: list[str], env: dict[str, str]) -> int:
    """Become ``fixsmtpio-rules`` with the rest of the arguments."""
    if len(argv) < 3 or argv[1] not in {"check", "try"}:
        sys.stderr.write(USAGE)
        return EXIT_USAGE
    sys.stdout.flush()
    return chain.execute(["fixsmtpio-rules", *argv[1:]], env)
