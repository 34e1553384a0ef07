"""The one error that is shown to users without a traceback."""


class UserError(Exception):
    """Bad input from outside: one clear line that names what is wrong and what is allowed."""
