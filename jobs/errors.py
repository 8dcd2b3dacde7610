"""What can be wrong with what a person asked for."""


class BadInput(Exception):
    """A file or an argument cannot be used; nothing was changed. The text says what would be right."""

    code = "bad_input"


class Failed(Exception):
    """What was asked for was tried and did not work."""

    code = "failed"
