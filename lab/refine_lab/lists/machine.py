"""Settings of the machine that a row of a list may ask for."""

from __future__ import annotations

from collections.abc import Mapping

from refine.core import machine
from refine.core.errors import UserError
from refine.core.params import unknown

INSTRUCTIONS = {
    "ATEN_CPU_CAPABILITY": ["default", "avx2", "avx512"],
    "ONEDNN_MAX_CPU_ISA": [
        *("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2"),
        *("AVX512_CORE", "AVX512_CORE_VNNI", "AVX512_CORE_BF16", "AVX512_CORE_FP16"),
        *("AVX512_CORE_AMX", "AVX512_CORE_AMX_FP16"),
    ],
}
"""The newest instructions that torch and oneDNN may use on x86, from the variables that they read; both take a value
that they do not know for none, so it is refused here."""


def check_machine(given: Mapping[str, int | str]) -> None:
    """Checks settings, `REFINE_*` or those of `INSTRUCTIONS`.

    Raises:
        ValueError: a name or a value is not known.
    """
    known = {*machine.NAMES, *INSTRUCTIONS}
    for name, value in given.items():
        if name not in known:
            raise ValueError(unknown(name, known))
        if name in INSTRUCTIONS and value not in INSTRUCTIONS[name]:
            raise ValueError(f"{name}={value} is not understood; give one of {', '.join(INSTRUCTIONS[name])}")
    try:
        machine.machine({name: str(value) for name, value in given.items()})
    except UserError as error:
        raise ValueError(str(error)) from None
