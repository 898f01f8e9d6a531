"""A gateway's core on real files, with the test's own clock: what nodes say goes in as messages, what is durable is read back.

It can be killed at any step, as by SIGKILL, and begun anew on the same files.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Table, select
from sqlalchemy.exc import OperationalError

from edge.contract.messages import Ack, Applied, Birth, BornDevice, State, encode
from edge.contract.ranges import Ranges
from edge.contract.topics import Channel, Topic, topic_for
from gateway.alerting.mute import Muting
from gateway.alerting.route import RouteConfig
from gateway.contacts.book import Book
from gateway.contacts.config import GroupConfig
from gateway.deployments import Deployment, Deployments
from gateway.errors import StoreDown, StoreRefused
from gateway.keeping.late import Keeps
from gateway.nodes.outgoing import Down, Outgoing
from gateway.nodes.signing import Signer
from gateway.paging import Paging
from gateway.pipeline import Message, Pipeline
from gateway.rules import RuleConfig, Surroundings, build_rule
from gateway.rules.occurrence import OccurrenceConfig
from gateway.state import State as Database
from gateway.state import open_state, tables
from gateway.store import SqliteStore, SqliteStoreConfig
from gateway.telemetry import Telemetry
from gateway.telling import Teller
from gateway.watch import Watch, WatchedRule

NOW_US = 1_780_434_720_000_000  # 2026-06-02T21:12:00Z, 3 June 06:12 in Japan
SECOND_US, MINUTE_US, HOUR_US = 1_000_000, 60_000_000, 3_600_000_000
YEAR_US = 365 * 24 * HOUR_US
NODE, EPOCH, BOOT, SESSION = "kitayama-03", "e" * 16, "b" * 16, "5" * 16
UPTIME_US = 1000 * SECOND_US
SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))

SPRUNG: dict[str, RuleConfig] = {
    "sprung": OccurrenceConfig(type="occurrence", event="trap_sprung", until="trap_reset", severity="critical")
}


class Killed(BaseException):
    """The process ends here; nothing after this line happens, and nobody catches it."""


class Steps:
    """Counts what could be interrupted, and interrupts the one that is asked for."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.fail_at: int | None = None
        self.error: BaseException = Killed()

    def step(self, name: str) -> None:
        self.taken.append(name)
        if self.fail_at == len(self.taken) - 1:
            raise self.error


def locked() -> OperationalError:
    return OperationalError("BEGIN IMMEDIATE", None, Exception("database is locked"))


class _Database(Database):
    """The real one, with its steps counted."""

    def __init__(self, real: Database, steps: Steps) -> None:
        super().__init__(real._engine, real.erasures_file)
        self._steps = steps

    @contextmanager
    def write(self, *, own: bool = False) -> Iterator[Connection]:
        self._steps.step("before a transaction")
        with super().write(own=own) as connection:
            yield connection
            self._steps.step("before its commit")
        self._steps.step("after its commit")

    def upsert(self, table: Table, changed: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
        if not self.is_shared:  # then it is a `write`
            super().upsert(table, changed, rows)
            return
        self._steps.step("before a transaction")
        self._steps.step("before its commit")  # which is the statement's end
        super().upsert(table, changed, rows)
        self._steps.step("after its commit")


class Store(SqliteStore):
    """The real one, which can be unplugged, and whose steps are counted."""

    def __init__(self, config: SqliteStoreConfig, steps: Steps) -> None:
        super().__init__(config)
        self.plugged = True
        self.written: list[Any] = []
        self.patience: list[tuple[float | None, int]] = []  # of each call, and how many points it was to write
        self.refuses: Callable[[Any], bool] = lambda point: False
        self._steps = steps

    def write(self, points: Sequence[Any], *, patience_s: float | None = None) -> None:
        self.patience.append((patience_s, len(points)))
        if not self.plugged:
            raise StoreDown("unplugged by the test")
        if any(self.refuses(point) for point in points):
            raise StoreRefused("refused by the test")
        self._steps.step("before the store's write")
        super().write(points, patience_s=patience_s)
        self.written += points
        self._steps.step("after the store's write")


class Town:
    """One gateway. `process` and `tick` use `now_us`, which only the test moves."""

    def __init__(
        self,
        folder: Path,
        rules: dict[str, RuleConfig] | None = None,
        routes: Sequence[RouteConfig] = (RouteConfig(to=["farmers", "office"]),),
        muting: Muting | None = None,
        groups: Mapping[str, GroupConfig] | None = None,
    ) -> None:
        self.folder, self.now_us, self._groups = folder, NOW_US, groups or {}
        self._rules, self._routes, self._muting = SPRUNG if rules is None else rules, routes, muting
        self.ours: set[str] | None = None  # the tags somebody is enrolled for; None: whatever comes
        self.steps = Steps()
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.telemetry = Telemetry()
        self._open()

    def _open(self) -> None:
        self.state = _Database(open_state(f"sqlite:///{self.folder / 'state.db'}"), self.steps)
        self.store = Store(SqliteStoreConfig(type="sqlite", path=self.folder / "series.db"), self.steps)
        self.deployments = deployments = Deployments(
            [Deployment(node=NODE, device="trap-11", kind="trap", place="北尾根", label="3番")]
        )
        zone = ZoneInfo("Asia/Tokyo")
        around = Surroundings(deployments, zone)
        watched = [
            WatchedRule(name, rule.severity, build_rule(rule, around), rule.kind, rule.mode) for name, rule in self._rules.items()
        ]
        contacts = {name for route in self._routes for step in route.all_steps for name in step.to}
        book = Book(self._groups, contacts - self._groups.keys(), zone)
        self.teller = Teller(deployments, zone)
        self.paging = Paging(self.state, self._routes, deployments, book, self.teller, say=self._say, telemetry=self.telemetry)
        self.watch = Watch(self.state, watched, deployments, self.telemetry, self._say, self.paging, self._muting)
        self.outgoing = Outgoing(self.state, SIGNER)
        self.pipeline = Pipeline(
            self.state, self.store, self.watch, self.telemetry, self._say, self.outgoing, self.paging, Keeps(self.is_ours)
        )

    def is_ours(self, tag: str) -> bool:
        """Whether somebody is enrolled for a tag; a test changes `ours`."""
        return self.ours is None or tag in self.ours

    def _say(self, kind: str, body: dict[str, Any]) -> None:
        self.said.append((kind, body))

    def __enter__(self) -> "Town":
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()
        self.state.close()

    def restart(self) -> None:
        """What was in memory is gone; the files are as they are."""
        self.__exit__()
        self.steps.fail_at = None
        self._open()

    # What happens

    def process(self, *messages: Message, away_since_us: int | None = None) -> list[Ack]:
        """The acks that come of the messages, in order."""
        acks = self.pipeline.process(list(messages), self.now_us, away_since_us)
        return [Ack.model_validate_json(payload) for _, payload, _ in acks]

    def tick(self, *, listening_since_us: int | None = NOW_US - YEAR_US) -> None:
        self.pipeline.tick(self.now_us, listening_since_us)

    def goes_down(self, *, anew: bool = False) -> list[Down]:
        """What nodes are told now besides acks; `anew`: on another connection than before."""
        return self.outgoing.messages(self.now_us, anew=anew)

    def later(self, us: int) -> None:
        self.now_us += us

    # What is durable

    def rows(self, table: Table) -> list[dict[str, Any]]:
        with self.state.read() as connection:
            return [dict(row) for row in connection.execute(select(table)).mappings()]

    def seqs(self) -> list[int]:
        """The numbers of the stored events, in the order of their commit."""
        return [row["seq"] for row in self.rows(tables.events)]

    def points(self, device: str = "trap-11", metric: str = "heartbeat", node: str = NODE) -> list[tuple[int, float]]:
        return self.store.read(node, device, metric, 0, 2**60, 100_000)

    def alerts(self) -> list[tuple[str, str]]:
        return [(row["rule"], row["state"]) for row in self.rows(tables.alerts)]

    def reasons(self) -> list[str]:
        return [row["reason"] for row in self.rows(tables.quarantine)]


def covered(acks: Iterable[Ack]) -> Ranges:
    """The numbers that the acks free at the edge."""
    found = Ranges()
    for ack in acks:
        for low, high in ((1, ack.upto), *ack.ranges):
            if high >= low:
                found.add(low, high)
    return found


def event(seq: int, dt: int = 0, type_: str = "trap_sprung", device: str = "trap-11", **more: Any) -> dict[str, Any]:
    """An event as it travels."""
    own = {"folded": 0} if type_.startswith("trap_") else {}
    return {"seq": seq, "dt": dt, "device": device, "type": type_, "class": more.pop("class_", "alarm"), **own, **more}


def reading(seq: int, dt: int = 0, device: str = "trap-11", metric: str = "heartbeat", value: Any = 1.0) -> list[Any]:
    return [seq, dt, device, metric, value]


def batch(
    readings: Sequence[Any] = (),
    events: Sequence[Any] = (),
    lost: Sequence[Any] = (),
    *,
    node: str = NODE,
    epoch: str = EPOCH,
    boot: str = BOOT,
    clock: str = "sync",
    t0: int = NOW_US,
    mono0: int = UPTIME_US,
    sent: int | None = None,
    channel: Channel = Channel.LIVE,
    **changed: Any,
) -> Message:
    """A batch's message of the boot its node is in. `sent` is its `t0` where not given, `sent_mono` as much later than `mono0`.

    `changed` replaces fields, whatever they are then.
    """
    sent = t0 if sent is None else sent
    body = {
        "v": 1, "epoch": epoch, "boot": boot, "clock": clock, "t0": t0, "mono0": mono0, "sent": sent,
        "sent_mono": max(mono0 + sent - t0, 0),
        "readings": list(readings), "events": list(events), "lost": [list(row) for row in lost], **changed,
    }  # fmt: skip
    return Message(topic_for(Topic(node, channel)), json.dumps(body).encode())


def birth(
    *, first: int = 1, oldest: int = 1, next_: int = 1, node: str = NODE, epoch: str = EPOCH, retained: bool = False,
    session: str = SESSION, devices: Sequence[str] = (), kind: str = "reed-trap", runs: int | None = None,
) -> Message:  # fmt: skip
    """`runs`: the revision of the configuration that it says it runs."""
    born = [BornDevice(device=device, kind=kind) for device in devices]
    config = None if runs is None else Applied(revision=runs, sha256="0" * 64)
    body = Birth(epoch=epoch, session=session, boot=BOOT, agent="test", sent=NOW_US, first=first, oldest=oldest, next=next_,
                 devices=born, config=config)  # fmt: skip
    return Message(topic_for(Topic(node, Channel.BIRTH)), encode(body), retained)


def state(online: bool, reason: Any = None, *, session: str = SESSION, node: str = NODE, retained: bool = False) -> Message:
    return Message(topic_for(Topic(node, Channel.STATE)), encode(State(session=session, online=online, reason=reason)), retained)
