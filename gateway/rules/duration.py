"""Durations in configuration: `90s`, `10m`, `26h`, `2d`, nothing else."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_pattern = re.compile(r"(\d{1,6})([smhd])")


def parse_duration(text: object) -> object:
    """Seconds of `90s`, `10m`, `26h`, `2d`. ValueError for anything else; numbers (seconds) pass."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        return text
    match = _pattern.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is no duration like 90s, 10m, 26h or 2d")
    return int(match[1]) * _UNITS_S[match[2]]


Duration = Annotated[int, BeforeValidator(parse_duration), Field(ge=0, le=366 * 86_400)]
"""Whole seconds, written with a unit."""
