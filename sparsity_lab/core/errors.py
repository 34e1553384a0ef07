"""The one error that is shown to users without a traceback."""


class UserError(Exception):
    """Bad input from outside. The message is one line that names the fault and the allowed values."""
