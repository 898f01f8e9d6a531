"""trap: one trap, by all that can be known of it: its switch, its movement, a camera beside it, its silence, and visits.

Any of the sensors raises the alert; that they agree, or don't, changes only what is said. A trap that has sprung stays sprung
until somebody was there: a switch that says set again may be an animal that pushes at the door.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from gateway.deployments import Deployments
from gateway.rules.duration import Duration
from gateway.rules.verdict import Fact, Memory, RuleBase, Verdict

SPRUNG, RESET, MOVED, VISITED, PICTURE = "trap_sprung", "trap_reset", "trap_moved", "trap_visited", "media_captured"
GATEWAY = "gateway"
"""The epoch of facts that the gateway makes: their order against a node's is that of time."""

_SHAKES_US = 10_000_000  # a trap that springs shakes: what is felt so soon says nothing of an animal in it


class TrapConfig(RuleBase):
    """`type = "trap"`."""

    type: Literal["trap"] = Field(description="A trap has sprung, or something moves it.")
    together: Duration = Field(600, ge=60, description="What two sensors say within this belongs together.")
    again_after: Duration = Field(
        600, description="Sprung again sooner than this after the last time is the same catch, shaking the switch."
    )
    calm_after: Duration = Field(1800, ge=60, description="Moved or seen, and not sprung: over when it was calm for so long.")
    silent_after: Duration = Field(900, ge=60, description="Not heard for so long: nobody knows how the trap stands now.")
    camera: Literal["raises", "agrees"] | None = Field(
        None,
        description="An animal before a camera at the trap's place raises the alert, or only agrees with the trap's own; absent: "
        "it agrees where a `detection` rule tells of it anyway, and raises where none does.",
    )


class Trap:
    """Fires when any sensor says so, ends with a visit; without a switch that sprang also by itself, when it is calm."""

    metrics = frozenset(("heartbeat", "bump"))
    events = frozenset((SPRUNG, RESET, MOVED, VISITED, PICTURE))
    ends: frozenset[str] = frozenset()  # which visit overtakes what is decided here, by number and by time

    def __init__(self, config: TrapConfig, deployments: Deployments, *, pictures_told: bool = False) -> None:
        """`pictures_told`: whether a `detection` rule tells of animals before cameras: nobody is told of one twice."""
        self._config = config
        self._camera = config.camera or ("agrees" if pictures_told else "raises")
        self._traps: dict[str, list[tuple[str, str]]] = {}
        for one in deployments:
            if one.kind == (config.kind or "trap"):
                self._traps.setdefault(one.place, []).append((one.node, one.device))
        self._known = {trap for traps in self._traps.values() for trap in traps}  # and what has sprung though nobody deployed it
        self._places = {(one.node, one.device): one.place for one in deployments if one.kind != (config.kind or "trap")}

    def about(self, fact: Fact) -> Sequence[tuple[str, str]]:
        """A picture concerns the traps at its camera's place; everything else the device that said it, where it is a trap."""
        if fact.name == PICTURE:
            return self._traps.get(self._places.get((fact.node, fact.device), ""), ())
        device = (fact.node, fact.device)
        if fact.name in self.metrics:  # every device of the town has a heartbeat
            return (device,) if device in self._known else ()
        self._known.add(device)
        return (device,)

    def on_fact(self, memory: Memory, fact: Fact, now_us: int, subject: tuple[str, str]) -> Verdict | None:  # noqa: ARG002
        """The verdict where something is new; None where nothing changes for people."""
        if fact.name != PICTURE and not fact.id.startswith(f"{GATEWAY}:"):
            self._heard(memory, fact)
        match fact.name:
            case "heartbeat":
                return self._said(memory)  # it speaks again, perhaps after a silence that was told
            case "bump":
                return self._bumped(memory, fact)
            case "trap_visited":
                return self._visited(memory, fact)
            case "trap_sprung":
                return self._sprung(memory, fact, now_us)
            case "trap_reset":
                if fact.is_newer_than(memory.get("reset")):
                    memory["reset"], memory["reset_us"] = fact.id, fact.time_us
            case "trap_moved":
                memory["feels"] = True
                return self._sign(memory, fact, "movement", now_us)
            case "media_captured":
                return self._seen(memory, fact, now_us)
        return self._said(memory)

    def on_tick(
        self, memory: Memory, now_us: int, listening_since_us: int | None, subject: tuple[str, str]
    ) -> Verdict | None:  # fmt: skip
        """Calm again; silent now; no movement in all the time since it sprang."""
        self._listen(memory, now_us, listening_since_us)
        opened = memory.get("open")
        if opened is None:
            return None
        self._known.add(subject)  # as of before a restart
        if opened["by"] != "switch":
            memory["felt_us"] = min(memory["felt_us"], now_us)
            if now_us - memory["felt_us"] >= self._config.calm_after * 1_000_000:
                return self._over(memory, now_us, "calm")
        else:
            opened["waited"] = opened.get("waited") or now_us - opened["known_us"] >= self._config.together * 1_000_000
        return self._said(memory)

    # What was heard, and what that means

    def _heard(self, memory: Memory, fact: Fact) -> None:
        memory["heard_us"] = memory["listened_us"] = max(fact.received_us, memory.get("heard_us", 0))
        memory["deaf_us"] = 0
        memory["silent"] = False

    def _listen(self, memory: Memory, now_us: int, listening_since_us: int | None) -> None:
        """Silence counts only while somebody listens, as absence has it."""
        heard_us = memory.get("heard_us")
        if heard_us is None or listening_since_us is None:
            return
        if heard_us > now_us:  # our own clock was ahead then
            heard_us = memory["heard_us"] = memory["listened_us"] = now_us
        memory["deaf_us"] += max(listening_since_us - memory["listened_us"], 0)
        memory["listened_us"] = max(now_us, listening_since_us)
        memory["silent"] = now_us - heard_us - memory["deaf_us"] >= self._config.silent_after * 1_000_000

    def _visited(self, memory: Memory, fact: Fact) -> Verdict | None:
        """Somebody was there. Only a visit after the trap sprang resets it."""
        opened = memory.get("open")
        if fact.id.startswith(f"{GATEWAY}:"):
            # It happened before we knew of it, whatever its node's clock said.
            after = opened is None or fact.time_us >= min(opened["since_us"], opened["known_us"])
            memory["visited_us"] = max(fact.time_us, memory.get("visited_us", 0))
        else:
            if not fact.is_newer_than(memory.get("visited")):
                return None
            memory["visited"] = fact.id
            # The button and the switch are of one node: its numbers say which came first.
            after = opened is None or (fact.is_newer_than(memory["sprung"]) if opened["by"] == "switch" else True)
        if opened is None or not after:
            return None
        return self._over(memory, fact.time_us, VISITED)

    def _sprung(self, memory: Memory, fact: Fact, now_us: int) -> Verdict | None:
        before, opened = memory.get("sprung"), memory.get("open")
        if not fact.is_newer_than(before) or not self._is_news(memory, fact):
            return self._said(memory)
        before_us = memory.get("sprung_us")
        memory["sprung"], memory["sprung_us"] = fact.id, fact.time_us
        if opened is not None and opened["by"] == "switch":
            same = fact.found or (before_us is not None and fact.time_us - before_us < self._config.again_after * 1_000_000)
            if same:
                return self._said(memory)
        memory.pop("bump_base", None)
        signs = ["switch"]
        near_us = self._config.together * 1_000_000
        for sign in ("movement", "camera"):
            at_us = memory.get(f"{sign}_us")
            if at_us is not None and abs(fact.time_us - at_us) <= near_us:
                signs.append(sign)
        memory["open"] = {
            "by": "switch", "since_us": fact.time_us, "known_us": now_us, "opening": fact.id, "late": fact.late, "signs": signs
        }  # fmt: skip
        if "camera" not in signs:
            memory.pop("picture", None)
        return self._said(memory)

    def _is_news(self, memory: Memory, fact: Fact) -> bool:
        """False for what a later visit has overtaken."""
        if not fact.is_newer_than(memory.get("visited")):
            return False
        # By time only where it is late: two clocks that differ by seconds must not make a trap deaf.
        return not (fact.late and fact.time_us <= memory.get("visited_us", 0))

    def _sign(self, memory: Memory, fact: Fact, sign: str, now_us: int) -> Verdict | None:
        """A sign that something is at the trap, or in it."""
        if not self._is_news(memory, fact) if sign == "movement" else fact.time_us <= memory.get("visited_us", 0):
            return self._said(memory)
        memory[f"{sign}_us"] = max(fact.time_us, memory.get(f"{sign}_us", 0))
        opened = memory.get("open")
        if opened is None:
            if sign == "camera" and self._camera == "agrees":
                return None
            memory["felt_us"] = fact.received_us
            memory["open"] = {
                "by": sign, "since_us": fact.time_us, "known_us": now_us, "opening": fact.id, "late": fact.late, "signs": [sign]
            }  # fmt: skip
            return self._said(memory)
        memory["felt_us"] = max(fact.received_us, memory.get("felt_us", 0))
        near = sign == "movement" or abs(fact.time_us - opened["since_us"]) <= self._config.together * 1_000_000
        # What moves the trap after it sprang is what it caught, whenever; an animal before it hours later may be another.
        if near and sign not in opened["signs"]:
            opened["signs"].append(sign)
        return self._said(memory)

    def _bumped(self, memory: Memory, fact: Fact) -> Verdict | None:
        """The total of movements felt: while sprung, the trap tells them in no other way."""
        memory["feels"] = True
        opened = memory.get("open")
        if opened is None or opened["by"] != "switch" or fact.time_us < opened["since_us"]:
            return self._said(memory)
        base = memory.get("bump_base")
        if base is None or fact.value < base or fact.time_us < opened["since_us"] + _SHAKES_US:
            memory["bump_base"] = fact.value
        elif fact.value > base and "movement" not in opened["signs"]:
            opened["signs"].append("movement")
        return self._said(memory)

    def _seen(self, memory: Memory, fact: Fact, now_us: int) -> Verdict | None:
        said = json.loads(fact.body)
        if said.get("content") == "person_or_vehicle" and said.get("media") == memory.get("picture", {}).get("media"):
            memory.pop("picture")  # told anew: a person may be in it
            return self._said(memory)
        if said.get("content") != "animal":
            return None
        if not said.get("withheld"):
            memory["picture"] = {"media": said.get("media"), "species": said.get("species")}
        return self._sign(memory, fact, "camera", now_us)

    def _over(self, memory: Memory, at_us: int, reason: str) -> Verdict:
        for name in ("open", "said", "bump_base", "picture", "movement_us", "camera_us", "felt_us"):
            memory.pop(name, None)
        return Verdict("ok", at_us, reason=reason)

    def _said(self, memory: Memory) -> Verdict | None:
        """What is to be said now, where it differs from what was said last."""
        opened = memory.get("open")
        if opened is None:
            return None
        facts = facts_of(memory)
        said = [opened["opening"], facts]
        if memory.get("said") == said:
            return None
        memory["said"] = said
        reason = {"switch": SPRUNG, "movement": MOVED, "camera": PICTURE}[opened["by"]]
        return Verdict("firing", opened["since_us"], opened["opening"], opened["late"], reason, facts)


def facts_of(memory: Memory) -> dict[str, Any]:
    """What an open trap alert says beside its reason.

    `state` sprung, sprung_silent, moved or seen · `signs` switch, movement, camera · `likely` capture, empty or moved, absent
    where nothing tells · `reset_us` the switch says set again, and nobody has been there by our records · `silent_since_us` ·
    `media`, `species` of the picture that agrees.
    """
    opened = memory["open"]
    signs: list[str] = opened["signs"]
    facts: dict[str, Any] = {"signs": signs}
    if opened["by"] == "switch":
        facts["state"] = "sprung_silent" if memory.get("silent") else "sprung"
        if len(signs) > 1:
            facts["likely"] = "capture"
        elif memory.get("feels") and opened.get("waited") and not memory.get("silent"):
            facts["likely"] = "empty"
        if memory.get("reset_us", 0) > opened["since_us"]:
            facts["reset_us"] = memory["reset_us"]
    else:
        facts["state"] = "moved" if "movement" in signs else "seen"
        facts |= {"likely": "moved"} if "movement" in signs else {"content": "animal"}
    if memory.get("silent"):
        facts["silent_since_us"] = memory["heard_us"]
    if "camera" in signs:
        facts |= {name: value for name, value in memory.get("picture", {}).items() if value is not None}
    return {**facts, "signs": list(signs)}
