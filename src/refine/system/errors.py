"""The one exception whose text is meant for the person at the terminal."""


class UserError(Exception):
    """Something outside the code is wrong: a parameter, a file, the machine.

    The text is one sentence that names the thing and the remedy; a stage prints it without a traceback.
    """
