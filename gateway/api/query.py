"""Times and durations as people and programs write them in a query. Pure; ValueError says what would be right."""

import re
from datetime import UTC, datetime, timedelta

LONGEST_TEXT = 40
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MS = 253_402_300_799_999  # the end of year 9999, as in ISO 8601
_duration = re.compile(r"([1-9][0-9]{0,6})(s|m|h|d)", re.ASCII)
_epoch_ms = re.compile(r"[0-9]{1,15}", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_instant_ms(text: str) -> int:
    """`2026-06-03T06:12:00+09:00`, `2026-06-02T21:12:00Z` or ms since 1970, as UTC ms."""
    if _epoch_ms.fullmatch(text):
        time_ms = int(text)
    else:
        try:
            moment = datetime.fromisoformat(text) if len(text) <= LONGEST_TEXT else None
        except ValueError:
            moment = None
        if moment is None:
            raise ValueError(f"{text[:LONGEST_TEXT]!r} is no time: write 2026-06-03T06:12:00Z or ms since 1970 (and + as %2B)")
        if moment.tzinfo is None:
            raise ValueError(f"{text!r} has no zone: end it with Z, or +09:00 (as %2B09:00)")
        try:
            time_ms = (moment - _EPOCH) // timedelta(milliseconds=1)
        except OverflowError:
            time_ms = -1
    if not 0 <= time_ms <= _MAX_MS:
        raise ValueError(f"{text!r} is outside of 1970 to 9999")
    return time_ms


def parse_duration_ms(text: str) -> int:
    """`60s`, `5m`, `1h` or `1d`, as ms."""
    found = _duration.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:LONGEST_TEXT]!r} is no duration: write 60s, 5m, 1h or 1d")
    return int(found[1]) * _SECONDS[found[2]] * 1000
