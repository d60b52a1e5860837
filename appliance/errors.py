"""What postern reports to a person instead of a traceback."""

import sys


class ApplianceError(Exception):
    """Something is in the way; the text is one line that says what, and what to do."""


def complain(error: Exception) -> None:
    """Write to standard error why a command did not do its work, a line for each reason."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename or 'system call'}: {error.strerror}"
    sys.stderr.write("".join(f"postern: {line}\n" for line in text.splitlines()))
