"""How times, durations, numbers, people and names are written in each language. Pure; one function a kind, listed in `FORMATS`.

A function is handed what a catalogue's `{placeholder:kind}` stands for. What is text already passes as it is.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from gateway.notify.message import Language

_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

_DAYS_READ = {
    1: "ついたち", 2: "ふつか", 3: "みっか", 4: "よっか", 5: "いつか", 6: "むいか", 7: "なのか", 8: "ようか", 9: "ここのか",
    10: "とおか", 14: "じゅうよっか", 20: "はつか", 24: "にじゅうよっか",
}  # fmt: skip
"""How days of a month are read where 日 is not simply にち."""

MINUTE_US, HOUR_US = 60_000_000, 3_600_000_000


def moment(time_us: int, zone: ZoneInfo, language: Language = "ja") -> str:
    """6月3日 午前6時12分; en: 6:12 am, 3 June."""
    if language == "en":
        return f"{clock(time_us, zone, language)}, {day(time_us, zone, language)}"
    return f"{day(time_us, zone, language)} {clock(time_us, zone, language)}"


def clock(time_us: int, zone: ZoneInfo, language: Language = "ja") -> str:
    """午前6時12分; en: 6:12 am."""
    time = _local(time_us, zone)
    if language == "en":
        return f"{time.hour % 12 or 12}:{time.minute:02} {'am' if time.hour < 12 else 'pm'}"
    morning, hour = time.hour < 12, time.hour % 12
    if language == "ja":
        return f"{'午前' if morning else '午後'}{hour}時{time.minute}分"
    return f"{'午前（ごぜん）' if morning else '午後（ごご）'} {hour}時（じ）{_minutes_easy(time.minute)}"


def day(time_us: int, zone: ZoneInfo, language: Language = "ja") -> str:
    """6月3日; en: 3 June."""
    date = _local(time_us, zone)
    if language == "en":
        return f"{date.day} {_MONTHS[date.month - 1]}"
    if language == "ja":
        return f"{date.month}月{date.day}日"
    return f"{date.month}月（がつ）{date.day}日（{_DAYS_READ.get(date.day, 'にち')}）"


def month(time_us: int, zone: ZoneInfo, language: Language = "ja") -> str:
    """9月; en: September."""
    number_ = _local(time_us, zone).month
    return _MONTHS[number_ - 1] if language == "en" else f"{number_}月" + ("（がつ）" if language == "ja-easy" else "")


def span(duration_us: int, language: Language = "ja") -> str:
    """45分, 26時間, 3日: one unit, rounded down, at least one minute; en: 45 minutes."""
    minutes = max(duration_us // MINUTE_US, 1)
    if minutes < 120:
        number, unit = minutes, "minute"
    elif minutes < 72 * 60:
        number, unit = minutes // 60, "hour"
    else:
        number, unit = minutes // (24 * 60), "day"
    if language == "en":
        return f"{number} {unit}{'' if number == 1 else 's'}"
    if language == "ja":
        return f"{number}{ {'minute': '分', 'hour': '時間', 'day': '日'}[unit] }"
    if unit == "minute":
        return _minutes_easy(number)
    return f"{number}時間（じかん）" if unit == "hour" else f"{number}日（{_DAYS_READ.get(number, 'にち')}）"


def lasting(duration_us: int, language: Language = "ja") -> str:
    """45分間, 26時間, 3日間: for so long; en as `span`, for a sentence that says `for`."""
    text = span(duration_us, language)
    if language == "en" or "時間" in text:
        return text
    return f"{text}間" if language == "ja" else re.sub(r"([分日])（(\w+)）", r"\1間（\2かん）", text)


def number(value: float, language: Language = "ja") -> str:
    """1,843 or 3.6: at most two decimals, the same in every language so far."""
    del language
    text = f"{value:,.2f}"
    return text.rstrip("0").rstrip(".")


def people(count: int, language: Language = "ja") -> str:
    """2人; en: 2 people."""
    if language == "en":
        return "1 person" if count == 1 else f"{number(count)} people"
    if language == "ja":
        return f"{number(count)}人"
    return f"{number(count)}人（{ {1: 'ひとり', 2: 'ふたり'}.get(count, 'にん') }）"


_HONORIFICS = ("さん", "様", "さま", "ちゃん", "くん", "先生")
"""A name that was entered with one gets no other."""


def names(who: str | Sequence[str], language: Language = "ja") -> str:
    """田中さん、鈴木さん; en: Tanaka and Suzuki. A single name may be given as it is."""
    all_ = [who] if isinstance(who, str) else list(who)
    if language == "en":
        return all_[0] if len(all_) == 1 else f"{', '.join(all_[:-1])} and {all_[-1]}" if all_ else ""
    return "、".join(one if one.endswith(_HONORIFICS) else f"{one}さん" for one in all_)


def spoken_place(where: str, language: Language = "ja") -> str:
    """A place as a voice says it, with a pause between its parts: 北尾根、3番."""
    return ("、" if language != "en" else ", ").join(where.split())


def _local(time_us: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(time_us / 1e6, UTC).astimezone(zone)


def _minutes_easy(minutes: int) -> str:
    """分 is ふん after 2, 5, 7, 9, and ぷん after the others; nothing is said as ふん."""
    return f"{minutes}分（{'ふん' if minutes == 0 or minutes % 10 in (2, 5, 7, 9) else 'ぷん'}）"


class Value(NamedTuple):
    """What is to be written: the fact, in which language, and where its clock stands (None: no time is asked for)."""

    fact: object
    language: Language
    zone: ZoneInfo | None


def _time(write: Callable[[int, ZoneInfo, Language], str]) -> Callable[[Value], str]:
    def written(value: Value) -> str:
        if value.zone is None:
            raise LookupError("a time needs its zone: words(..., zone=ZoneInfo(...))")
        return write(_whole(value.fact), value.zone, value.language)

    return written


def _count(write: Callable[[int, Language], str]) -> Callable[[Value], str]:
    return lambda value: write(_whole(value.fact), value.language)


def _number(value: Value) -> str:
    if isinstance(value.fact, bool) or not isinstance(value.fact, int | float):
        raise LookupError(f"{value.fact!r} is no number")  # noqa: TRY004 - as every fact that doesn't fit its sentence
    return number(value.fact, value.language)


def _names(value: Value) -> str:
    if isinstance(value.fact, Sequence) and all(isinstance(one, str) for one in value.fact):
        return names(value.fact, value.language)
    raise LookupError(f"{value.fact!r} is neither a name nor a list of names")


def _whole(fact: object) -> int:
    if isinstance(fact, bool) or not isinstance(fact, int):
        raise LookupError(f"{fact!r} is no whole number")  # noqa: TRY004 - likewise
    return fact


FORMATS: Mapping[str, Callable[[Value], str]] = {
    "at": _time(moment),  # UTC µs
    "clock": _time(clock),
    "day": _time(day),
    "month": _time(month),
    "span": _count(span),  # µs
    "lasting": _count(lasting),
    "people": _count(people),
    "number": _number,
    "names": _names,
    "spoken": lambda value: spoken_place(str(value.fact), value.language),
}
"""What may stand after a placeholder's colon."""
