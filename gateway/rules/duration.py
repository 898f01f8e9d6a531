"""Durations (`90s`, `10m`, `26h`, `2d`) and times of day (`07:30`) in configuration: how they are written, and nothing else."""

import datetime as dt
import re
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_pattern = re.compile(r"(\d{1,6})([smhd])")
_time = "([01][0-9]|2[0-3]):[0-5][0-9]"
_SHOWN = 40  # as much of what somebody wrote as is said back


def parse_duration(text: object) -> object:
    """Seconds of `90s`, `10m`, `26h`, `2d`. ValueError for anything else; numbers (seconds) pass."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        return text
    match = _pattern.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is no duration like 90s, 10m, 26h or 2d")
    return int(match[1]) * _UNITS_S[match[2]]


def parse_time_of_day(text: object) -> str:
    """`07:30` itself. ValueError for anything else, and for TOML's own time without quotes."""
    if isinstance(text, dt.time):
        raise ValueError(f'{text} is without quotes; write it as "{text:%H:%M}"')  # noqa: TRY004 - what pydantic catches
    if not isinstance(text, str) or re.fullmatch(_time, text) is None:
        raise ValueError(f"{_shown(text)} is no time of day; write it as {_meant(text)}")
    return text


def parse_time_or_never(text: object) -> str:
    """`07:30` or `never` itself. ValueError for anything else."""
    if text == "never":
        return "never"
    try:
        return parse_time_of_day(text)
    except ValueError as error:
        raise ValueError(f"{error}, or never") from None


def _meant(text: object) -> str:
    """What somebody may have meant who wrote `7:30`, and otherwise an example."""
    short = f"0{text}"
    return short if re.fullmatch(_time, short) else "07:30"


def _shown(text: object) -> str:
    said = repr(text)
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]}…"


Duration = Annotated[int, BeforeValidator(parse_duration), Field(ge=0, le=366 * 86_400)]
"""Whole seconds, written with a unit."""

TimeOfDay = Annotated[str, BeforeValidator(parse_time_of_day), WithJsonSchema({"type": "string", "pattern": f"^{_time}$"})]
"""A time of the local day, `00:00` to `23:59`."""

TimeOrNever = Annotated[
    str, BeforeValidator(parse_time_or_never), WithJsonSchema({"type": "string", "pattern": f"^(never|{_time})$"})
]
"""A time of the local day, or `never`."""
