"""Commands of `refine`, run in the test's own process."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from refine.command.main import main

PROGRAM = "from refine.command.main import main; main()"
"""For `python -c`, where a process of its own is wanted; the arguments follow."""


@dataclass(frozen=True)
class Ended:
    """Exit status of a command, and what it said."""

    status: int
    out: str
    err: str

    def is_one_sentence(self, *mentions: str) -> bool:
        """Whether it failed in one sentence that mentions what it must, and said nothing else."""
        one = self.err.startswith("error: ") and self.err.count("\n") == 1 and self.err.endswith("\n")
        return self.status == 1 and one and not self.out and all(mention in self.err for mention in mentions)


def refine(printed: pytest.CaptureFixture[str], *arguments: object) -> Ended:
    """Runs a command.

    Args:
        printed: what captures the test's output.
        arguments: of the command, its name first.
    """
    printed.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = printed.readouterr()
    code = ended.value.code  # where it is a sentence, Python prints it and ends with status 1
    return Ended(1, out, f"{err}{code}\n") if isinstance(code, str) else Ended(int(code or 0), out, err)
