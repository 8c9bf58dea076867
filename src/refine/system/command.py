"""What every command besides the stages does around its work."""

from __future__ import annotations

import sys
from collections.abc import Callable

from refine.system.errors import UserError


def command(main: Callable[[], None]) -> None:
    """Runs a command: what the user can mend comes as one sentence."""
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
