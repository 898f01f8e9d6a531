"""detection: what the cameras of one place have seen. A burst is one event, the same animal again is counted and not told again.

Recall first: what may be an animal is told. A person is not: pictures with one raise nothing, end what they were part of, and are
never named to anybody.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from edge.contract.names import Name
from gateway.deployments import Deployments
from gateway.rules.duration import Duration
from gateway.rules.verdict import Fact, Memory, RuleBase, Severity, Verdict

PICTURE, CONFIRMED = "media_captured", "picture_confirmed"
UNSURE = "unsure"
_MOST_PICTURES, _MOST_BURSTS, _MOST_SPECIES = 20, 20, 20  # remembered of one place
_LONGEST_BURST_US = 60_000_000


class DetectionConfig(RuleBase):
    """`type = "detection"`."""

    type: Literal["detection"] = Field(description="A camera has seen an animal, or what may be one.")
    dangerous: Annotated[list[Name], Field(max_length=20)] = Field(
        ["bear"], description="Species that are told at the first picture, without waiting for the burst's end."
    )
    dangerous_severity: Severity = Field("critical", description="How urgent an alert of a dangerous species is.")
    unclassified: Literal["unsure", "ignore"] = Field(
        "unsure", description="What a picture that no model has looked at counts as: `unsure`, which is told, or nothing."
    )
    gap: Duration = Field(10, description="Pictures without a burst's id that follow so soon are one; it is told so long after.")
    quiet_for: Duration = Field(
        1800,
        ge=60,
        description="The same species at the same place so soon again is counted, not told. No picture so long: over.",
    )


class Detection:
    """One verdict a place, whichever of its cameras saw it. The subject is the place's first camera."""

    metrics: frozenset[str] = frozenset()
    events = frozenset((PICTURE, CONFIRMED))
    ends: frozenset[str] = frozenset()
    flaps = False  # what repeats is counted here already, and what is told is another animal

    def __init__(self, config: DetectionConfig, deployments: Deployments) -> None:
        self._config = config
        places: dict[str, list[tuple[str, str]]] = {}
        for one in deployments:
            if one.kind == (config.kind or "camera"):
                places.setdefault(one.place, []).append((one.node, one.device))
        self._first = {camera: cameras[0] for cameras in places.values() for camera in cameras}
        self._labels = {(one.node, one.device): one.label for one in deployments}

    def about(self, fact: Fact) -> Sequence[tuple[str, str]]:
        """The first camera of the place."""
        camera = (fact.node, fact.device)
        return (self._first.get(camera, camera),)

    def on_fact(self, memory: Memory, fact: Fact, now_us: int, subject: tuple[str, str]) -> Verdict | None:  # noqa: ARG002
        """A picture, or what a person says of one."""
        said = json.loads(fact.body)
        if "media" not in said:
            return None
        if fact.name == CONFIRMED:
            return self._confirmed(memory, fact, said, now_us)
        content = said.get("content")
        burst = said.get("burst") or said["media"]
        if content == "person_or_vehicle":
            return self._closed(memory, said["media"], said.get("burst"), now_us)
        if content == "unclassified":
            content = None if self._config.unclassified == "ignore" else UNSURE
        if content is None or burst in memory.get("closed", ()) or said["media"] in memory.get("denied", ()):
            return None
        return self._detected(memory, fact, said, now_us)

    def on_tick(
        self, memory: Memory, now_us: int, listening_since_us: int | None, subject: tuple[str, str]  # noqa: ARG002
    ) -> Verdict | None:  # fmt: skip
        """A burst that is over is told; what was quiet for long enough is over."""
        told: dict[str, Any] = memory.get("told", {})
        for species in [name for name, one in told.items() if self._is_quiet(one, now_us)]:
            del told[species]
        opened = memory.get("open")
        if opened is None:
            return None
        opened["seen_us"], opened["known_us"] = min(opened["seen_us"], now_us), min(opened["known_us"], now_us)
        if not opened["told"]:
            waited = now_us - opened["seen_us"] >= self._config.gap * 1_000_000
            if waited or now_us - opened["known_us"] >= _LONGEST_BURST_US:
                self._tell(memory, opened, now_us)
        elif now_us - opened["seen_us"] >= self._config.quiet_for * 1_000_000:
            return self._over(memory, now_us, "quiet")
        return self._said(memory)

    # Pictures

    def _detected(self, memory: Memory, fact: Fact, said: dict[str, Any], now_us: int) -> Verdict | None:
        species, media = said.get("species"), said["media"]
        opened, burst = memory.get("open"), said.get("burst")
        known = opened is not None and (media in opened["pictures"] or (burst is not None and burst in opened["bursts"]))
        same_burst = known or (
            opened is not None
            and burst is None
            and not opened["told"]
            and fact.received_us - opened["seen_us"] <= self._config.gap * 1_000_000
        )
        danger = species in self._config.dangerous
        if opened is not None and (same_burst or self._is_same(memory, opened, species, now_us)):
            if danger and opened["species"] != species:
                return self._begin(memory, fact, said, now_us)  # a bear among boars: another thing, and told
            if not same_burst:
                opened["times"] += 1
                if opened["species"] in memory.get("told", {}):
                    memory["told"][opened["species"]]["seen_us"] = now_us
            self._add(opened, fact, said, now_us)
            return self._said(memory)
        before = memory.get("told", {}).get(species or UNSURE)
        if before is not None and not self._is_quiet(before, now_us):
            before["seen_us"] = now_us  # seen again between others: it was told, and is counted with what is open now
            if opened is not None:
                opened["times"] += 1
            return self._said(memory)
        return self._begin(memory, fact, said, now_us)

    def _is_same(self, memory: Memory, opened: dict[str, Any], species: str | None, now_us: int) -> bool:
        """The same again. What has no name is taken for what is there already; a name is news to what had none."""
        if species is None:
            return True
        if opened["species"] in self._config.dangerous and species not in self._config.dangerous:
            return True  # who was told of a bear need not be told of the boar that follows it
        if opened["species"] != species:
            return not opened["told"] and opened["species"] is None
        told = memory.get("told", {}).get(species)
        return told is None or not self._is_quiet(told, now_us)

    def _is_quiet(self, told: dict[str, Any], now_us: int) -> bool:
        """Whether it may be told again: a bear that stays is told each time, others that stay are told once."""
        since_us: int = told["told_us"] if told["danger"] else told["seen_us"]
        return now_us - min(since_us, now_us) >= self._config.quiet_for * 1_000_000

    def _begin(self, memory: Memory, fact: Fact, said: dict[str, Any], now_us: int) -> Verdict | None:
        species = said.get("species")
        opened = memory["open"] = {
            "opening": fact.id, "since_us": fact.time_us, "known_us": now_us, "seen_us": now_us, "late": fact.late,
            "species": None, "content": UNSURE, "told": False, "times": 1, "pictures": {}, "bursts": [],
        }  # fmt: skip
        self._add(opened, fact, said, now_us)
        if species in self._config.dangerous:
            self._tell(memory, opened, now_us)
        return self._said(memory)

    def _add(self, opened: dict[str, Any], fact: Fact, said: dict[str, Any], now_us: int) -> None:
        """Takes a picture into what is open."""
        opened["seen_us"] = max(now_us, opened["seen_us"])
        opened["species"] = opened["species"] or said.get("species")
        sure = said.get("content") == "animal"
        if sure:
            opened["content"] = "animal"
        score = said.get("confidence") or 0.0
        shown = sure and not said.get("withheld")
        opened["pictures"][said["media"]] = [round(score, 3), int(shown), fact.node, fact.device, said.get("burst")]
        while len(opened["pictures"]) > _MOST_PICTURES:
            del opened["pictures"][next(iter(opened["pictures"]))]
        if (burst := said.get("burst")) is not None and burst not in opened["bursts"]:
            opened["bursts"] = [*opened["bursts"], burst][-_MOST_BURSTS:]

    def _closed(self, memory: Memory, media: str, burst: str | None, now_us: int) -> Verdict | None:
        """A person is in it, and so perhaps in all of its burst: nothing of that burst is told or named from now on."""
        closed: list[str] = memory.setdefault("closed", [])
        for name in (burst, media):
            if name is not None and name not in closed:
                closed.append(name)
        del closed[:-_MOST_BURSTS]
        return self._without(memory, lambda sha256, of: sha256 == media or (burst is not None and of == burst), now_us, "person")

    def _without(self, memory: Memory, gone: Any, now_us: int, why: str) -> Verdict | None:
        """Takes pictures out of what is open; without any left it is over."""
        opened = memory.get("open")
        if opened is None:
            return None
        left = {sha256: one for sha256, one in opened["pictures"].items() if not gone(sha256, one[4])}
        if len(left) == len(opened["pictures"]):
            return None
        opened["pictures"] = left
        if not left:
            memory.get("told", {}).pop(opened["species"] or UNSURE, None)
            return self._over(memory, now_us, why)
        return self._said(memory)

    # What a person says

    def _confirmed(self, memory: Memory, fact: Fact, said: dict[str, Any], now_us: int) -> Verdict | None:
        media, species = said["media"], said.get("species")
        opened: dict[str, Any] = memory.get("open") or {"pictures": {}, "species": None}
        if said["content"] == "person_or_vehicle":
            burst = opened["pictures"].get(media, [None] * 5)[4]
            return self._closed(memory, media, burst, now_us)
        here = media in opened["pictures"]
        if said["content"] == "no_animal":
            denied: list[str] = memory.setdefault("denied", [])
            denied.append(media)
            del denied[:-_MOST_PICTURES]
            if not here:
                return None
            memory.get("told", {}).pop(opened["species"] or UNSURE, None)  # the next one is news
            return self._over(memory, now_us, "no_animal")
        if species in self._config.dangerous and opened["species"] != species:
            began = {"media": media, "content": "animal", "species": species}
            self._begin(memory, fact, began, now_us)
            # Whether it may be shown is for what the node said of it, not for what animal it is.
            memory["open"]["pictures"] = {media: opened["pictures"].get(media, [1.0, 0, fact.node, fact.device, None])}
            memory["open"]["confirmed"] = True
            return self._said(memory)
        if not here and (species is None or opened["species"] != species):
            return None
        opened["confirmed"], opened["content"] = True, "animal"
        opened["species"] = species or opened["species"]
        if not opened["told"]:
            self._tell(memory, opened, now_us)
        return self._said(memory)

    # What is said

    def _tell(self, memory: Memory, opened: dict[str, Any], now_us: int) -> None:
        opened["told"] = True
        told = memory.setdefault("told", {})
        species = opened["species"] or UNSURE
        told.pop(species, None)
        told[species] = {"told_us": now_us, "seen_us": now_us, "danger": species in self._config.dangerous}
        while len(told) > _MOST_SPECIES:
            del told[next(iter(told))]

    def _over(self, memory: Memory, now_us: int, why: str) -> Verdict | None:
        memory.pop("said", None)
        del memory["open"]
        return Verdict("ok", now_us, reason=why)

    def _said(self, memory: Memory) -> Verdict | None:
        """What is to be said now, where it differs from what was said last."""
        opened = memory.get("open")
        if opened is None:
            return None
        level: Literal["firing", "pending"] = "firing" if opened["told"] else "pending"
        facts = self._facts(opened)
        now = {"level": level, "opening": opened["opening"], "facts": facts, "times": opened["times"]}
        if memory.get("said") == now:
            return None
        memory["said"] = now
        severity = self._config.dangerous_severity if opened["species"] in self._config.dangerous else None
        return Verdict(
            level, opened["since_us"], opened["opening"], opened["late"], "detection", facts, opened["times"], severity=severity
        )  # fmt: skip

    def _facts(self, opened: dict[str, Any]) -> dict[str, Any]:
        """What the words need.

        `content` animal or unsure · `species` or null · `dangerous` · `pictures` how many · `confidence` of the best ·
        `media_all` the SHA-256 that an answer is about, best first · `media` the best that may be shown, absent where none may ·
        `label` of the camera that has it · `confirmed` a person said so.
        """
        best = sorted(opened["pictures"].items(), key=lambda one: one[1][0], reverse=True)
        facts: dict[str, Any] = {
            "content": opened["content"],
            "species": opened["species"],
            "dangerous": opened["species"] in self._config.dangerous,
            "pictures": len(best),
            "media_all": [sha256 for sha256, _ in best[:5]],
            "confirmed": bool(opened.get("confirmed")),
        }
        if best:
            score, _, node, device, _ = best[0][1]
            facts |= {"confidence": score, "label": self._labels.get((node, device), "")}
        shown = [sha256 for sha256, one in best if one[1]]
        return {**facts, "media": shown[0]} if shown else facts
