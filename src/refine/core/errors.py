"""The exception whose message is written for the user, and how it is printed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from refine.core.outside import explained


class UserError(Exception):
    """Something outside the code is wrong: a parameter, a file, the machine.

    The message is one sentence that names the problem and the remedy; it is printed without a traceback.
    """


def one_line(sentence: str) -> str:
    """The error message as it is printed: on a single line, even if parts of it contain line breaks."""
    return "error: " + " ".join(sentence.split())


def command(main: Callable[[], Any]) -> Any:
    """Runs a command that is not a stage; errors that the user can fix are printed in one sentence, exit status 1."""
    try:
        return main()
    except UserError as error:
        sys.exit(one_line(str(error)))
    except Exception as error:
        sentence = explained(error)
        if sentence is None:
            raise
        sys.exit(one_line(sentence))
    except KeyboardInterrupt as interrupt:
        sentence = str(interrupt) or "interrupted; type the same command again to go on"
        sys.stderr.write(f"{one_line(sentence)}\n")
        sys.exit(130)
