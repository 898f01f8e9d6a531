"""Which open alerts are muted, and by what: silences, alerts that inhibit others, windows, the town's mode, flapping."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, select

from gateway.alerting.lifecycle import Alert, Move, settle
from gateway.alerting.mute import FLAPPING, MODE, InForce, Muting, Silence, in_force, muted, still_inhibits
from gateway.deployments import Deployments
from gateway.flow.mode import TownMode
from gateway.state.tables import alerts
from gateway.watch.known import ALERT_COLUMNS, Known
from gateway.watch.watched import Key, Taken, kind_of

# Built once: SQLAlchemy takes longer to put such a statement together than SQLite to answer it.
_ENDED = select(*ALERT_COLUMNS).where(alerts.c.state == "resolved", alerts.c.resolved_us > bindparam("since_us"))


class Mutes:
    """Used by the watch's thread only."""

    def __init__(self, muting: Muting, rules: Mapping[str, Taken], deployments: Deployments, known: Known) -> None:
        self.muting, self._rules, self._deployments, self._known = muting, rules, deployments, known
        self._of_silence = frozenset(name for name, one in rules.items() if getattr(one.rule, "of_silence", False))
        self.sources: dict[str, Alert] = {}  # alerts that may inhibit others, by id
        self.mode: TownMode = "normal"
        self._mark: tuple[Any, ...] | None = None  # the mutes by which all open alerts were settled

    def load(self, connection: Connection, now_us: int) -> None:
        """Once `known` is: what is open may inhibit others, and for a while what is over."""
        self.sources, self._mark = {}, None
        for alert in self._known.open.values():
            self.note(self.sources, alert)
        for row in connection.execute(_ENDED, {"since_us": now_us - self.muting.longest_hold_us}):
            self.note(self.sources, Alert(**row._mapping))

    def reread(self, before: Mapping[Key, Alert], now_us: int) -> None:
        """`known` has read anew what is open; `before`: as it was."""
        ids = {alert.id for alert in self._known.open.values()}
        for source in list(self.sources.values()):
            if source.id not in ids and source.state != "resolved":  # a person ended it
                self.sources[source.id] = replace(source, state="resolved", resolved_us=now_us)
        for key, alert in self._known.open.items():
            if before.get(key) != alert:
                self.note(self.sources, alert)
        self._mark = None

    def pass_to(self, now_us: int) -> None:
        """Lets go of what inhibits nothing any more."""
        self.sources = {id_: one for id_, one in self.sources.items() if still_inhibits(one, self.muting, now_us)}

    def forget(self, gone: set[Key]) -> None:
        """Lets go of the alerts of who was erased."""
        self.sources = {id_: one for id_, one in self.sources.items() if (one.rule, one.node, one.device) not in gone}

    def note(self, sources: dict[str, Alert], alert: Alert) -> None:
        """An alert as it is now, where it may inhibit others."""
        if alert.id in sources or self.muting.sources(alert, self._of_silence):
            sources[alert.id] = alert

    def force(self, silences: Iterable[Silence], sources: Mapping[str, Alert], now_us: int) -> InForce:
        """What holds now."""
        return in_force(self.muting, silences, sources.values(), self._of_silence, now_us)

    def forced(
        self, force: InForce, sources: dict[str, Alert], silences: Iterable[Silence], moves: Iterable[Move], now_us: int
    ) -> InForce:
        """What holds after these moves, which `sources` are told of."""
        before = dict(sources)
        for move in moves:
            self.note(sources, move.alert)
        return force if sources == before else self.force(silences, sources, now_us)

    def unsettled(self, force: InForce, now_us: int) -> list[Key]:
        """The open alerts that time or a mute moves now. All are looked at only where a mute or an alert has changed."""
        mark = (
            self.mode,
            *force.mark,
            tuple(sorted((key, one.told) for key, one in self._known.openings.items() if one.told is not None)),
        )
        same, self._mark = mark == self._mark, mark
        return [
            key
            for key, alert in self._known.open.items()
            if (alert.state == "shelved" or (not same and alert.state in ("firing", "suppressed")))
            and settle(alert, now_us, self.reason(key, alert, force)) is not None
        ]

    def reason(self, key: Key, alert: Alert, force: InForce) -> str | None:
        """Why it is muted; None where it is not."""
        openings, rule = self._known.openings.get(key), self._rules.get(key[0])
        if rule is not None and rule.mode not in (None, self.mode):
            return MODE
        return muted(alert, force) or (FLAPPING if openings is not None and openings.mutes(alert) else None)

    def may_inhibit(self, watched: Taken, key: Key) -> bool:
        """Whether the alert that it may open would inhibit others."""
        name, node, device = key
        kind = kind_of(self._deployments, node, device)
        alert = Alert("", name, kind, watched.severity, node, device, "", "firing", 0, late=False, summary="")
        return self.muting.sources(alert, self._of_silence)
