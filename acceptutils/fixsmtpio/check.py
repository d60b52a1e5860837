"""fixsmtpio-rules check FILE, fixsmtpio-rules try FILE [DIALOGUE]: for writers of rules."""

import os
import sys
from collections.abc import Iterator

from acceptutils.fixsmtpio import replay, rules
from acceptutils.fixsmtpio.reply import has_code

USAGE = """usage: fixsmtpio-rules check FILE
       fixsmtpio-rules try FILE [DIALOGUE]
"""

EXIT_GOOD = 0
EXIT_MISTAKE = 1
EXIT_USAGE = 100
EXIT_UNREADABLE = 111


def main(argv: list[str], env: dict[str, str]) -> int:
    """Check a rule file, or show what its rules do to a dialogue.

    FILE or DIALOGUE ``-`` is standard input.

    Returns:
        0; 1 when a file has a mistake, whose place is printed; 100 for misuse, 111 when a
        file cannot be read.
    """
    match argv[1:]:
        case ["check", file]:
            dialogue = None
        case ["try", file]:
            dialogue = ""
        case ["try", file, dialogue]:
            pass
        case _:
            sys.stderr.write(USAGE)
            return EXIT_USAGE
    try:
        content = _read(file)
        played = _read(dialogue).decode("utf-8", "surrogateescape") if dialogue else ""
    except OSError as error:
        sys.stderr.write(f"fixsmtpio-rules: {error.filename}: {error.strerror}\n")
        return EXIT_UNREADABLE
    try:
        parsed = rules.parse(content)
    except rules.RuleError as error:
        print(f"{file}:{error.line}:{error.column}: {error.reason}")
        return EXIT_MISTAKE
    for line, text in advice(parsed):
        print(f"{file}:{line}: warning: {text}")
    if dialogue is None:
        print(f"{file}: {len(parsed.rules)} rules")
        return EXIT_GOOD
    try:
        for title, text in {dialogue: played}.items() if dialogue else replay.EXAMPLES.items():
            print(f"== {title}")
            print("\n".join(replay.replay(parsed, text)))
    except replay.DialogueError as error:
        print(f"{dialogue}: {error}")
        return EXIT_MISTAKE
    return EXIT_GOOD


def advice(parsed: rules.Rules) -> Iterator[tuple[int, str]]:
    """Yield line and text for what parses and still is hardly meant."""
    for rule in parsed.rules:
        if rule.response and not rule.response.startswith(b"&") and not has_code(rule.response):
            yield (
                rule.line,
                "response without a reply code: gets that of the line it replaces",
            )
        if len(rule.event.split()) != 1 or rule.event.strip() != rule.event:
            yield rule.line, "an event with a blank in it never happens"
        if rule.prepend and rule.event in rules.OCCURRENCES:
            yield rule.line, "request-prepend without a request"
        if rule.event == b"data" and rule.response.startswith(b"354"):
            yield rule.line, "354 in place of a refusal ends the session"


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    with open(file, "rb") as opened:
        return opened.read()


if __name__ == "__main__":
    sys.exit(main(sys.argv, dict(os.environ)))
