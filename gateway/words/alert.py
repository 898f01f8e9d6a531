"""What an alert is told by: its moment, and the facts that the sentence needs. The one place that reads `Alert.facts` for words.

A rule's facts are raw (µs, numbers, names). What the sentences use beside place and time, where it is there:

any        `moment`: an id to use instead. `where`: instead of the deployment's place. `flapping`: told with the alert's count.
           `media`: a picture that may be shown.
trap       `likely`: capture, empty or moved. `silent_since_us`. `reset_us`: its switch is back, and nobody was there.
           `day_us` of a round; `missing` of a dossier: what it lacks, as gateway.traps.captures calls it.
camera     `species`, `content` (animal, unsure), `dangerous`, `picture_later`: text goes first.
watched    `who` or `name`, as the reader may know it. `place`, `seen_us`: the last sighting. `percent` or `voltage` of a battery.
area, flow `density`, `level`, `rising`, `advice`. `alive` of `lines` counters. `shelter` with `inside`, `share`.
           `usual`, `hours` of a stuck counter.
gateway    by the alert's device: `left`, `limit`, `runs_out_us` of line_quota; `at_us` of canary; `name`, `why` of contact;
           `n` of dead_letters.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from gateway.alerting.lifecycle import Alert
from gateway.deployments import Deployment
from gateway.notify.message import Language
from gateway.words.catalogue import has, text
from gateway.words.moments import Words, words
from gateway.words.times import HOUR_US

log = logging.getLogger(__name__)

DANGEROUS = ("bear",)
"""Species that people are warned of where the rule doesn't say which are dangerous."""

_OWN = {
    "audit": "alert.audit",
    "broker": "alert.broker_down",
    "canary": "alert.canary_unanswered",
    "canary_lost": "alert.canary_lost",
    "clock": "alert.clock",
    "contact": "alert.contact_unreachable",
    "dead_letters": "alert.dead_letters",
    "disk": "alert.disk",
    "line_quota": "alert.line_quota",
    "line_quota_out": "alert.line_quota_out",
    "pictures_missing": "alert.pictures_missing",
    "shelf": "alert.shelf_full",
    "store": "alert.store_down",
}
"""Of the gateway itself, by its part."""

_SUMMARIES = {
    "battery_voltage": "alert.battery",
    "button_pressed": "alert.button_pressed",
    "count_in": "alert.flow_rising",
    "count_out": "alert.flow_rising",
    "device_down": "alert.device_down",
    "left_home": "alert.left_home",
    "no_coverage": "alert.no_coverage",
    "node_offline": "alert.node_offline",
    "not_seen": "alert.not_seen",
    "round": "alert.round_overdue",
    "dossier": "alert.dossier",
    "capture": "alert.capture",
    "stuck": "alert.counter_stuck",
    "tag_battery": "alert.tag_battery",
    "tamper_opened": "alert.tamper_opened",
    "test_alarm": "alert.test_alarm",
    "trap_moved": "alert.trap_moved",
    "trap_sprung": "alert.trap_sprung",
}
"""By the first word of an alert's summary, which is the rule's reason."""

_WATCHED = {
    "arrived": "watch.arrived",
    "left home": "alert.left_home",
    "no coverage": "watch.no_coverage",
    "not seen": "alert.not_seen",
    "tag battery": "alert.tag_battery",
    "tag button": "alert.tag_button",
}
"""Of a person's tag, as gateway.rules.presence says it."""


def alert_words(
    alert: Alert,
    deployment: Deployment,
    zone: ZoneInfo,
    now_us: int,
    language: Language = "ja",
    facts: Mapping[str, Any] | None = None,
) -> Words:
    """What a person is told of an alert. `facts`: more than the alert holds, or instead of it, e.g. the name behind a tag.

    A fact that a sentence needs and nobody gave costs the sentence, never the message: then it is a plain notice.
    """
    try:
        known: dict[str, Any] = {**json.loads(alert.facts), **(facts or {})}
        given = _facts(alert, deployment, now_us, language, zone, known)
        return words(language, moment_of(alert, deployment, known), kind=alert.kind, zone=zone, **given)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        if alert.rule not in _unsaid:
            _unsaid.add(alert.rule)
            log.error("rule.%s: its alerts are told as plain notices: %s", alert.rule, error)
        late = text(language, "part.late", age=now_us - alert.since_us) if alert.late else None
        plain: dict[str, Any] = {"where": _where(deployment), "when": alert.since_us, "late": late, "summary": alert.summary}
        return words(language, "alert.other", zone=zone, **plain)


_unsaid: set[str] = set()
"""Rules whose facts did not fit their sentence: said once."""


def moment_of(alert: Alert, deployment: Deployment, facts: Mapping[str, Any]) -> str:  # noqa: PLR0911 - one a family
    """Which moment of the catalogue it is."""
    if has(f"{facts.get('moment')}.title"):
        return str(facts["moment"])
    if facts.get("flapping"):
        return "alert.flapping"
    if alert.kind == "gateway":
        return _OWN.get(alert.device, "alert.other")
    if alert.node == "watched":
        return _WATCHED.get(alert.summary, _SUMMARIES.get(alert.summary.partition(" ")[0], "alert.other"))
    if alert.summary.startswith("no "):
        return _silent(alert, deployment)
    if alert.summary == "crowd":
        return _crowd(facts)
    first = alert.summary.partition(" ")[0]
    if first in ("media_captured", "detection", "animal", "unsure"):
        return _camera(facts)
    if first == "tags_near":
        return "alert.tags_missing" if deployment.kind == "home" else "alert.other"
    if first == "trap_sprung" and facts.get("likely") == "moved":
        return "alert.trap_moved"
    return _SUMMARIES.get(first, "alert.other")


def _silent(alert: Alert, deployment: Deployment) -> str:
    kinds = {"trap": "alert.trap_silent", "node": "alert.node_offline", "flow": "alert.counter_silent"}
    return kinds.get(deployment.kind, kinds.get(alert.kind, "alert.silent"))


def _crowd(facts: Mapping[str, Any]) -> str:
    if facts.get("shelter"):
        return "alert.shelter"
    if facts.get("held", facts.get("level", 0) if not facts.get("rising") else 0) >= 3:
        return "alert.crowd_danger"
    return "alert.crowd_rising" if facts.get("rising") else "alert.crowd"


def _camera(facts: Mapping[str, Any]) -> str:
    if facts.get("dangerous", facts.get("species") in DANGEROUS):
        return "alert.dangerous"
    if facts.get("content") == "animal" or facts.get("species"):
        return "alert.animal"
    return "alert.unsure" if facts.get("content") in ("unsure", "unclassified") or "signs" in facts else "alert.media_captured"


def _facts(
    alert: Alert, deployment: Deployment, now_us: int, language: Language, zone: ZoneInfo, known: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that a sentence about an alert may need; what is not known is absent."""

    def part(id_: str, **facts: object) -> str:
        return text(language, id_, zone, **facts)

    age_us = now_us - alert.since_us
    given: dict[str, Any] = {
        **{name: fact for name, fact in known.items() if name not in ("kind", "zone")},
        "where": known.get("where") or _where(deployment),
        "when": alert.since_us,
        "day": known.get("day_us", alert.since_us),
        "age": age_us,
        "summary": alert.summary,
        "tag": about_tag(known, language, zone)["tag"],
        "n": known.get("n", alert.count),
        "species": species(known.get("species"), language),
        "volt": alert.summary.rpartition(" ")[2],
    }
    # Of each part: when it is said, and how.
    parts: dict[str, Callable[[], str | None]] = {
        "late": lambda: part("part.late", age=age_us) if alert.late else None,
        "again": lambda: part("part.more_here", n=alert.count - 1) if alert.count > 1 else None,
        "pictures": lambda: _pictures(known, alert, part),
        "likely": lambda: part(_LIKELY[known["likely"]]) if known.get("likely") in _LIKELY else None,
        "silent": lambda: _holds(known, part),
        "seen": lambda: _seen(known, part),
        "level": lambda: _level(known, part),
        "coverage": lambda: part("part.coverage", working=known["alive"], all=known["lines"]) if _partial(known) else None,
        "advice": lambda: known.get("advice") or _advice(known, part),
        "missing": lambda: _listed(known.get("missing"), part),
        "why": lambda: part(f"unreachable.{known['why']}") if has(f"unreachable.{known.get('why')}") else known.get("why"),
    }
    given |= {name: said() for name, said in parts.items()}
    if known.get("share") is not None:
        given |= {"percent": round(known["share"] * 100), "people": known.get("inside")}
    if isinstance(known.get("hours"), int):
        given["age"] = known["hours"] * HOUR_US
    if isinstance(known.get("usual"), float):
        given["usual"] = round(known["usual"])
    if alert.kind == "gateway" and "at_us" in known:
        given["when"] = known["at_us"]
    if "runs_out_us" in known:
        given["when"] = known["runs_out_us"]
    return given


def about_tag(known: Mapping[str, Any], language: Language, zone: ZoneInfo) -> dict[str, str | None]:
    """`tag` and `seen` of a message about a person's tag that is no alert: from `who`, `place`, `seen_us`, `never_seen`."""

    def part(id_: str, **facts: object) -> str:
        return text(language, id_, zone, **facts)

    who = known.get("who") or known.get("name")
    tag = part("part.tag_of", name=who) if who else part("part.tag")
    return {"tag": tag, "seen": _seen(known, part)}


def _where(deployment: Deployment) -> str:
    """The place as its people call it. What stands nowhere has none: a person's tag, the gateway, its canary."""
    if deployment.node in ("watched", "gateway", "canary"):
        return ""
    if deployment.node == "area" and deployment.place == deployment.node:
        return deployment.label
    return f"{deployment.place} {deployment.label}".strip()


_LIKELY = {"capture": "part.likely_capture", "empty": "part.likely_empty"}

Part = Callable[..., str]


def species(name: str | None, language: Language) -> str:
    """What people call it; an animal where we have no word for it."""
    return text(language, f"species.{name}" if has(f"species.{name}") else "species.other")


def _pictures(known: Mapping[str, Any], alert: Alert, part: Part) -> str | None:
    if known.get("media"):
        return part("part.pictures", n=known.get("pictures", 1))
    return part("part.pictures_later") if alert.kind == "camera" and known.get("picture_later") else None


def _holds(known: Mapping[str, Any], part: Part) -> str | None:
    """What is so since the trap sprang: silence, a switch that is back."""
    said = [part("part.set_again")] if known.get("reset_us") else []
    if known.get("silent_since_us"):
        said.append(part("part.silent_since"))
    return part("part.both", first=said[0], second=said[1]) if len(said) == 2 else "".join(said) or None


def _listed(missing: Sequence[str] | None, part: Part) -> str | None:
    return part("part.and").join(part(f"dossier.{one}") if has(f"dossier.{one}") else one for one in missing or ()) or None


def _seen(known: Mapping[str, Any], part: Part) -> str | None:
    if known.get("place") and known.get("seen_us"):
        return part("part.last_seen", place=known["place"], when=known["seen_us"])
    return part("part.never_seen") if known.get("never_seen") else None


def _level(known: Mapping[str, Any], part: Part) -> str | None:
    if known.get("shelter"):
        return part(f"shelter.level.{known['level']}")
    if known.get("unit") == "level" or known.get("unit") == "voltage":
        known = {**known, "percent" if known["unit"] == "level" else "voltage": known.get("battery")}
    if known.get("percent") is not None:
        return part("part.battery_level", percent=round(known["percent"]))
    if known.get("voltage") is not None:
        return part("part.battery_voltage", volt=known["voltage"])
    return None


def _partial(known: Mapping[str, Any]) -> bool:
    """Whether some counters are not heard: then the sum must say so."""
    return bool(known.get("lines")) and known.get("alive", 0) < known["lines"]


def _advice(known: Mapping[str, Any], part: Part) -> str | None:
    level = known.get("level")
    if known.get("shelter") or "density" not in known or not isinstance(level, int):
        return None
    return part("part.stop_entry" if level >= 3 else "part.slow_entry")
