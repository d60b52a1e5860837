"""What the commands that administer the volume have in common: verbs, and how they end."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from appliance.errors import ApplianceError, complain
from appliance.layout import Layout

EXIT_REFUSED = 1
EXIT_USAGE = 100
EXIT_TEMPORARY = 111

Command = Callable[[Layout, argparse.Namespace], None]


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistake with all that it knows, not only with its usage."""

    def error(self, message: str) -> NoReturn:
        """Print the help and what is wrong, and leave."""
        self.print_help(sys.stderr)
        self.exit(EXIT_USAGE, f"\n{self.prog}: {message}\n")


def verb(
    verbs: "argparse._SubParsersAction[Parser]",
    name: str,
    run: Command,
    text: str,
) -> Parser:
    """Add a verb to a command, and return its parser for what the verb takes.

    Args:
        verbs: of the command.
        name: of the verb.
        run: what it does; see `main` for the errors it may raise.
        text: one line of help.
    """
    added = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
    added.set_defaults(run=run)
    return added


def main(
    parser: Parser,
    words: Sequence[str],
    env: dict[str, str],
    places: Layout | None,
    refusals: tuple[type[Exception], ...],
) -> int:
    """Run the verb that a command line names.

    Args:
        parser: of the command, with its verbs.
        words: the command line without what the parser is called by.
        env: the environment, which the verb finds in its arguments as ``env``.
        places: where everything is; in the container, if None.
        refusals: errors that mean that the change is not allowed.

    Returns:
        0; 1 when the change was refused, with a line that says why; 100 for wrong usage; 111
        when the volume could not be read or written.
    """
    try:
        arguments = parser.parse_args(words)
    except SystemExit as leaving:
        return EXIT_USAGE if leaving.code else 0
    command: Command = arguments.run
    arguments.env = env
    try:
        command(places or Layout(), arguments)
    except refusals as error:
        complain(error)
        return EXIT_REFUSED
    except (ApplianceError, OSError) as error:
        complain(error)
        return EXIT_TEMPORARY
    return 0
