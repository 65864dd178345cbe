"""The errors a user can cause: shown as one message, never as a traceback."""


class AuroraError(Exception):
    """Something went wrong that the user can mend: bad data, a full disk, a locked run. Exit code 1.

    The message states the value, what was expected, and the fix.
    """

    exit_code = 1


class RecipeError(AuroraError):
    """The recipe or the command line is wrong; nothing was started. Exit code 2."""

    exit_code = 2


class DataError(AuroraError):
    """An input file is missing, damaged, empty, or not what the recipe says it is. Exit code 1."""
