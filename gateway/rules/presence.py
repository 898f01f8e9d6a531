"""presence: where a person's tag was heard last, and what follows from not hearing it.

Three-valued, because silence has two reasons: `seen`; `not seen while a receiver here was alive`; `no coverage`, when nobody
listened and nothing follows. It speaks of the tag: a tag may lie at home while who carries it has gone.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, model_validator

from gateway.deployments import Deployments
from gateway.mimamori.enrolled import WATCHED, Enrolled, Watched
from gateway.rules.duration import Duration, TimeOfDay
from gateway.rules.verdict import Fact, Memory, RuleBase, Verdict

ENTERED, SEEN, LEFT, BATTERY, PRESSED = "tag_entered", "tag_seen", "tag_left", "tag_battery", "button_pressed"

_DAY_US = 86_400_000_000
_SAMPLES = 60  # of a tag's battery: two months, one a day
_LEAST_TREND_US = 3 * _DAY_US


class PresenceConfig(RuleBase):
    """`type = "presence"`."""

    type: Literal["presence"] = Field(description="A watched person's tag is where it should not be, or is not heard.")
    when: Literal["left_home_at_night", "not_seen", "no_coverage", "arrived", "battery", "button"] = Field(
        description="What fires: the tag left home in the night; was not heard for `for` although a receiver at home was alive; "
        "no receiver at home is heard; it came to one of `places`; its battery is dying; its button was pressed."
    )
    night_from: TimeOfDay = Field("21:00", description="`left_home_at_night`: when the night begins, local time.")
    night_to: TimeOfDay = Field("05:00", description="`left_home_at_night`: when it ends.")
    gone_after: Duration = Field(
        600,
        ge=60,
        description="A tag that its receiver at home, being alive, has not spoken of for so long has left without a word.",
    )
    for_s: Duration = Field(6 * 3600, alias="for", ge=60, description="`not_seen`: how long.")
    receiver_silent_after: Duration = Field(900, ge=60, description="A receiver that was not heard for so long hears nothing.")
    places: list[Annotated[str, Field(max_length=60)]] = Field([], description="`arrived`: places, as deployments name them.")
    hold: Duration = Field(600, description="`arrived` and `button`: over so long after the last.")
    battery_level: Annotated[int, Field(ge=0, le=100)] = Field(20, description="`battery`: percent that is low.")
    battery_voltage: Annotated[float, Field(ge=0, le=100)] = Field(2.4, description="`battery`: volts that are low.")
    battery_days: Annotated[int, Field(ge=0, le=365)] = Field(
        14, description="`battery`: it will be empty so soon, as fast as it falls."
    )

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> "PresenceConfig":
        if self.when == "arrived" and not self.places:
            raise ValueError("places: say where")
        if self.night_from == self.night_to:
            raise ValueError("night_from and night_to are the same")
        return self


class Presence:
    """One verdict a watched person."""

    metrics = frozenset(("heartbeat",))
    events = frozenset((ENTERED, SEEN, LEFT, BATTERY, PRESSED))
    ends: frozenset[str] = frozenset()

    def __init__(
        self, config: PresenceConfig, deployments: Deployments, enrolled: Enrolled, zone: ZoneInfo, keep_s: float = 14 * 86_400
    ) -> None:
        """`keep_s`: how long it may remember where a tag was."""
        self._keep_us = int(keep_s * 1e6)
        self._config, self._deployments, self._enrolled, self._zone = config, deployments, enrolled, zone
        self.of_silence = config.when == "no_coverage"

    def about(self, fact: Fact) -> Sequence[tuple[str, str]]:
        """Who carries the tag; or, of a receiver's heartbeat, whose home it is at."""
        if fact.name == "heartbeat":
            return [(WATCHED, id_) for id_ in self._enrolled.at_home((fact.node, fact.device))]
        tag = _tag_of(fact.body)
        who = self._enrolled.whose(tag) if tag is not None else None
        return () if who is None else [(WATCHED, who)]

    def subjects(self) -> Iterable[tuple[str, str]]:
        """Everybody who is enrolled now."""
        return [(WATCHED, id_) for id_ in self._enrolled.ids()]

    def on_fact(self, memory: Memory, fact: Fact, now_us: int, subject: tuple[str, str]) -> Verdict | None:
        """Takes note of where the tag is, and judges."""
        who = self._enrolled.heeded(subject[1])
        if who is None:
            return None
        receiver = f"{fact.node}/{fact.device}"
        home = (fact.node, fact.device) in who.homes
        if home:
            alive = memory.setdefault("alive", {})
            alive[receiver] = max(fact.received_us, alive.get(receiver, 0))
        if fact.name == BATTERY:
            self._note_battery(memory, fact)
        elif fact.name == PRESSED:
            self._note_place(memory, receiver, fact)
            if self._config.when == "button":
                return self._pressed(memory, fact, now_us)
        elif fact.name != "heartbeat":
            arrived = self._note_move(memory, receiver, fact, who, home=home)
            if self._config.when == "arrived" and arrived and self._place(receiver) in self._config.places and not fact.late:
                memory["since_us"], memory["opening"] = fact.time_us, fact.id
                memory["held_us"] = fact.received_us
        return self._judge(memory, now_us, subject[1], late=fact.late)

    def on_tick(self, memory: Memory, now_us: int, listening_since_us: int | None, subject: tuple[str, str]) -> Verdict | None:
        """What follows from time: a night without a word, a receiver that fell silent."""
        who = self._enrolled.heeded(subject[1])
        if who is None:
            known = bool(memory)
            memory.clear()
            return Verdict("ok", now_us, reason="watched over no more") if known else None
        self._forget(memory, now_us)
        self._keep_theirs(memory, who, now_us)
        if listening_since_us is None:
            memory["ticked_us"] = now_us  # time in which we are deaf is nobody's silence
            return None
        self._pass(memory, now_us, listening_since_us)
        self._notice_gone(memory, who, now_us, listening_since_us)
        return self._judge(memory, now_us, subject[1], late=False, listening_since_us=listening_since_us)

    # What is noted

    def _note_move(self, memory: Memory, receiver: str, fact: Fact, who: Watched, *, home: bool) -> bool:
        """Whether the tag has just come within this receiver's reach."""
        tag = _tag_of(fact.body) or ""
        at = memory.setdefault("at", {}).setdefault(_here(receiver, tag), {})
        if not fact.is_newer_than(at.get("id")):
            return False
        # A receiver that started anew has not said that it left: who was not heard for so long comes anew.
        before = at.get("near", False) and fact.time_us - at["heard_us"] <= self._config.gone_after * 1_000_000
        at["id"], at["near"] = fact.id, fact.name != LEFT
        at["heard_us"] = max(fact.time_us, at.get("heard_us", 0))
        self._note_place(memory, receiver, fact)
        if home:
            left = memory.setdefault("left", {})
            if self._is_home(memory, who, tag, fact.received_us):
                left.pop(tag, None)
            elif fact.name == LEFT:
                left.setdefault(tag, [fact.time_us, fact.late])
        return bool(at["near"]) and not before

    def _is_home(self, memory: Memory, who: Watched, tag: str, now_us: int) -> bool:
        """Whether a receiver at home has the tag near it; a silent one only until another lost what it had heard later."""
        there = [one for home in who.homes if (one := memory.get("at", {}).get(_here("/".join(home), tag))) is not None]
        lost_us = max((one["heard_us"] for one in there if not one["near"]), default=0)
        for node, device in who.homes:
            one = memory.get("at", {}).get(_here(f"{node}/{device}", tag))
            if one is not None and one["near"]:
                silent = (
                    now_us - memory.get("alive", {}).get(f"{node}/{device}", 0) > self._config.receiver_silent_after * 1_000_000
                )
                if not silent or one["heard_us"] >= lost_us:
                    return True
        return False

    def _keep_theirs(self, memory: Memory, who: Watched, now_us: int) -> None:
        """Forgets what was of a tag that is not theirs any more, and of a receiver that is not at their home any more."""
        memory.setdefault("begun_us", now_us)
        theirs, homes = self._enrolled.tags_of(who.id), {"/".join(home) for home in who.homes}
        if memory.get("alive", {}).keys() - homes:
            memory["alive"] = {receiver: at_us for receiver, at_us in memory["alive"].items() if receiver in homes}
        for part in ("left", "battery"):
            for tag in memory.get(part, {}).keys() - theirs:
                del memory[part][tag]
        for here in [one for one in memory.get("at", {}) if one.partition(" ")[2] not in theirs]:
            del memory["at"][here]
        if not theirs:
            for name in ("seen_us", "seen_at", "seen_tag", "quiet_us"):
                memory.pop(name, None)
        elif memory.get("seen_tag") not in (None, *theirs):
            # Where a tag was that was taken from them is forgotten; that one of theirs was heard then, and no more, stays.
            del memory["seen_tag"]
            memory.pop("seen_at", None)

    def _note_place(self, memory: Memory, receiver: str, fact: Fact) -> None:
        if fact.time_us >= memory.get("seen_us", 0):
            memory["seen_us"], memory["seen_at"], memory["seen_tag"] = fact.time_us, receiver, _tag_of(fact.body)
        if not fact.late:
            memory["quiet_us"] = 0

    def _note_battery(self, memory: Memory, fact: Fact) -> None:
        said = json.loads(fact.body)
        battery = memory.setdefault("battery", {})
        unit = "level" if said.get("level") is not None else "voltage"
        if said.get(unit) is None:
            return
        one = battery.setdefault(said["tag"], {"unit": unit, "samples": []})
        if one["unit"] != unit:
            one.update(unit=unit, samples=[])
        samples: list[list[float]] = one["samples"]
        value = float(said[unit])
        if samples and fact.time_us <= samples[-1][0]:
            return
        if samples and value > samples[-1][1] + (10 if unit == "level" else 0.2):
            samples.clear()  # a new battery
        samples.append([fact.time_us, value])
        del samples[:-_SAMPLES]

    def _pass(self, memory: Memory, now_us: int, listening_since_us: int) -> None:
        """Adds the time since the last tick to the silence, where somebody could have heard."""
        before_us = min(max(memory.get("ticked_us", now_us), listening_since_us), now_us)
        if self._covered(memory, now_us):
            memory["quiet_us"] = memory.get("quiet_us", 0) + now_us - before_us
        memory["ticked_us"] = now_us

    def _notice_gone(self, memory: Memory, who: Watched, now_us: int, listening_since_us: int) -> None:
        """A receiver that started anew has forgotten whom it heard, and one that is broken hears nobody: neither says `left`."""
        limit_us = self._config.gone_after * 1_000_000
        at: dict[str, Any] = memory.get("at", {})
        theirs: dict[str, int] = {}  # of each tag that was ever at home, when it was heard there last
        for here, one in at.items():
            receiver, _, tag = here.partition(" ")
            alive_us = memory.get("alive", {}).get(receiver)
            if alive_us is None:
                continue
            theirs[tag] = max(one["heard_us"], theirs.get(tag, 0))
            if one["near"] and now_us - listening_since_us >= limit_us:
                one["near"] = not (now_us - one["heard_us"] > limit_us and alive_us - one["heard_us"] > limit_us)
        left = memory.setdefault("left", {})
        for tag, heard_us in theirs.items():
            if tag not in left and not self._is_home(memory, who, tag, now_us):
                left[tag] = [heard_us, False]

    def _forget(self, memory: Memory, now_us: int) -> None:
        """Where the tag was so long ago; that it was heard then, and no more, stays."""
        before_us = now_us - self._keep_us
        if memory.get("seen_us", before_us) < before_us:
            memory.pop("seen_at", None)
            memory.pop("seen_tag", None)
        for receiver, at in list(memory.get("at", {}).items()):
            if at.get("heard_us", now_us) < before_us:
                del memory["at"][receiver]

    # What follows

    def _judge(
        self, memory: Memory, now_us: int, id_: str, *, late: bool, listening_since_us: int | None = None
    ) -> Verdict | None:
        match self._config.when:
            case "left_home_at_night":
                # Any of their tags: which of them they have with them nobody knows.
                gone = sorted(one for one in memory.get("left", {}).values() if self._is_night(one[0]))
                left_us, was_late = gone[0] if gone else (None, late)
                return self._level(memory, bool(gone), left_us, "left home", late=was_late, id_=id_, now_us=now_us)
            case "not_seen":
                fires = "seen_us" in memory and memory.get("quiet_us", 0) >= self._config.for_s * 1_000_000
                return self._level(memory, fires, memory.get("seen_us"), "not seen", late=False, id_=id_, now_us=now_us)
            case "no_coverage":
                silent_us = self._config.receiver_silent_after * 1_000_000
                heard_us = max(memory.get("alive", {}).values(), default=memory.get("begun_us", now_us))
                fires = now_us - heard_us > silent_us
                if listening_since_us is None and fires:
                    return None
                if fires and listening_since_us is not None:
                    fires = now_us - listening_since_us > silent_us
                return self._level(memory, fires, heard_us, "no coverage", late=False, id_=id_, now_us=now_us)
            case "battery":
                low = self._low(memory)
                since_us = memory.setdefault("low_us", now_us) if low else memory.pop("low_us", None)
                return self._level(memory, low is not None, since_us, "tag battery", late=False, id_=id_, now_us=now_us, more=low)
            case _:  # arrived, button: by themselves over
                if "held_us" not in memory:
                    return None
                memory["held_us"] = min(memory["held_us"], now_us)
                if now_us - memory["held_us"] >= self._config.hold * 1_000_000:
                    del memory["held_us"]
                    return Verdict("ok", now_us, reason="over")
                reason = "tag button" if self._config.when == "button" else "arrived"
                return Verdict("firing", memory["since_us"], memory["opening"], late, reason, self._facts(memory, id_, now_us))

    def _pressed(self, memory: Memory, fact: Fact, now_us: int) -> Verdict | None:
        """One press that two receivers hear is one alert, and so is an impatient finger."""
        if "held_us" not in memory:
            if now_us - fact.time_us >= self._config.hold * 1_000_000 and fact.time_us <= memory.get("pressed_us", 0):
                return None
            memory["since_us"], memory["opening"] = fact.time_us, fact.id
        memory["pressed_us"] = max(fact.time_us, memory.get("pressed_us", 0))
        memory["held_us"] = max(fact.received_us, memory.get("held_us", 0))
        who = self._enrolled.whose(json.loads(fact.body)["tag"])
        assert who is not None  # noqa: S101 - about() said so
        facts = {**self._facts(memory, who, now_us), "press": json.loads(fact.body).get("press")}
        return Verdict("firing", memory["since_us"], memory["opening"], fact.late, "tag button", facts)

    def _level(
        self, memory: Memory, fires: bool, since_us: int | None, reason: str, *, late: bool, id_: str, now_us: int,
        more: Mapping[str, Any] | None = None,
    ) -> Verdict | None:  # fmt: skip
        if fires and since_us is not None:
            memory.setdefault("open_us", since_us)
            facts = {**self._facts(memory, id_, now_us), **(more or {})}
            return Verdict("firing", memory["open_us"], str(memory["open_us"]), late, reason, facts)
        return Verdict("ok", now_us, reason="seen") if memory.pop("open_us", None) is not None else None

    def _facts(self, memory: Memory, id_: str, now_us: int) -> dict[str, Any]:
        who = self._enrolled.heeded(id_)
        return {
            "watched": id_,
            "family": who.family if who else None,
            "state": state(memory, who.homes if who else (), now_us, self._config.receiver_silent_after),
            "place": self._place(memory["seen_at"]) if "seen_at" in memory else None,
            "seen_us": memory.get("seen_us"),
            "battery_low": self._low(memory) is not None,
        }

    def _covered(self, memory: Memory, now_us: int) -> bool:
        return covered(memory, now_us, self._config.receiver_silent_after)

    def _place(self, receiver: str) -> str:
        node, _, device = receiver.partition("/")
        return self._deployments.of(node, device).place

    def _is_night(self, time_us: int) -> bool:
        local = datetime.fromtimestamp(time_us // 1_000_000, UTC).astimezone(self._zone)
        at, begin, end = f"{local:%H:%M}", self._config.night_from, self._config.night_to
        return begin <= at < end if begin < end else at >= begin or at < end

    def _low(self, memory: Mapping[str, Any]) -> dict[str, Any] | None:
        """The worst of the person's tags, where its battery is low or soon empty: what it says, and in how many days."""
        found: list[tuple[float, dict[str, Any]]] = []
        for one in memory.get("battery", {}).values():
            samples, unit = one["samples"], one["unit"]
            value = samples[-1][1]
            limit = self._config.battery_level if unit == "level" else self._config.battery_voltage
            days = _days_left(samples, 0.0 if unit == "level" else 2.0)
            if value <= limit or (days is not None and days <= self._config.battery_days):
                low = {"battery": value, "unit": unit, "days_left": None if days is None else int(days)}
                found.append((value / max(limit, 1e-9), low))
        return min(found, key=lambda one: one[0])[1] if found else None


def covered(memory: Mapping[str, Any], now_us: int, silent_after_s: int) -> bool:
    """Whether some receiver at home was heard of late."""
    return any(now_us - heard_us <= silent_after_s * 1_000_000 for heard_us in memory.get("alive", {}).values())


def state(memory: Mapping[str, Any], homes: Iterable[tuple[str, str]], now_us: int, silent_after_s: int) -> str:
    """`home`, `near` (another receiver hears it now), `away` (not heard though one at home is alive), `no_coverage`, `never`."""
    if "seen_us" not in memory:
        return "never"
    at_home = {f"{node}/{device}" for node, device in homes}
    silent_us, elsewhere = silent_after_s * 1_000_000, False
    for here, one in memory.get("at", {}).items():
        receiver = here.partition(" ")[0]
        if one.get("near") and receiver in at_home:
            if now_us - memory.get("alive", {}).get(receiver, 0) <= silent_us:
                return "home"
        elif one.get("near") and now_us - one.get("heard_us", 0) <= silent_us:
            elsewhere = True
    if elsewhere:
        return "near"
    return "away" if covered(memory, now_us, silent_after_s) else "no_coverage"


def _here(receiver: str, tag: str) -> str:
    """The key of `at`: a tag at a receiver."""
    return f"{receiver} {tag}"


@lru_cache(maxsize=64)
def _tag_of(body: str) -> str | None:
    """The tag that an event names. Remembered, because every rule of this kind asks of the same event."""
    tag = json.loads(body).get("tag")
    return tag if isinstance(tag, str) else None


def _days_left(samples: Sequence[Sequence[float]], empty: float) -> float | None:
    """Days until a battery is empty, by a straight line through its samples; None while it does not fall or is hardly known."""
    if len(samples) < 3 or samples[-1][0] - samples[0][0] < _LEAST_TREND_US:
        return None
    days = [(at_us - samples[-1][0]) / _DAY_US for at_us, _ in samples]
    values = [value for _, value in samples]
    mean_day, mean = sum(days) / len(days), sum(values) / len(values)
    spread = sum((day - mean_day) ** 2 for day in days)
    slope = sum((day - mean_day) * (value - mean) for day, value in zip(days, values, strict=True)) / spread
    if slope >= -1e-9:
        return None
    return max((empty - values[-1]) / slope, 0.0)
