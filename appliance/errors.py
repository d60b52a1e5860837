"""What postern reports to a person instead of a traceback."""


class ApplianceError(Exception):
    """Something is in the way; the text is one line that says what, and what to do."""
