"""The one exception whose text is meant for the person at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from refine.core.outside import told


class UserError(Exception):
    """Something outside the code is wrong: a parameter, a file, the machine.

    The text is one sentence that names the thing and the remedy; a stage prints it without a traceback.
    """


def one_line(sentence: str) -> str:
    """How an error is told, whatever line ends its parts brought along."""
    return "error: " + " ".join(sentence.split())


def command(main: Callable[[], Any]) -> Any:
    """Runs a command that is no stage: what the user can mend comes as one sentence, exit status 1."""
    try:
        return main()
    except UserError as error:
        sys.exit(one_line(str(error)))
    except Exception as error:
        sentence = told(error)
        if sentence is None:
            raise
        sys.exit(one_line(sentence))
    except KeyboardInterrupt as interrupt:
        sentence = str(interrupt) or "interrupted; type the same command again to go on"
        sys.stderr.write(f"{one_line(sentence)}\n")
        sys.exit(130)
