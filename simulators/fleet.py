"""Many light nodes over few MQTT connections: load for a gateway, and proof of what became of it.

A fleet's node is no agent: it has no outbox on disk and no drivers. It speaks as one does (its own epoch, seqs without a hole,
birth, batches of readings, events apart) and, as one does, it takes nothing for delivered that its `down/ack` does not name:
what is not acked is sent again, also over a new connection. It is one thread; it stands where a node's uplink would.
"""

import argparse
import json
import random
import secrets
import select
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.contract.broker import parse_url
from edge.contract.messages import Ack, Birth, BornDevice, State, encode
from edge.contract.topics import Channel, Topic, topic_for

READINGS = 10
"""Readings of one live batch: what the devices of one node say in a second."""

_DEVICES = (
    ("trap-1", "reed-trap", ("heartbeat", "trap_closed")),
    ("counter", "people-counter", ("heartbeat", "count_in", "count_out")),
    ("tags", "ble-tags", ("tags_near", "rssi")),
    ("node", "node-health", ("cpu_temperature", "memory_free", "outbox_waiting")),
    ("cam-1", "trail-camera", ()),
)
ROWS = [(device, metric) for device, _, metrics in _DEVICES for metric in metrics]
"""The series of a node, in the order in which a batch has them."""

_CAMERAS = 0.1  # of the nodes; each one's first picture opens an alert
_RESEND_S = 10.0
_LOOK_S = 0.5
_RECONNECT_S = 1.0
_PATIENCE_S = 10.0
_SUBSCRIBE_AT_ONCE = 100


class Said(NamedTuple):
    """One batch as it travels, and the seqs in it: low..high."""

    payload: bytes
    low: int
    high: int


class FleetNode:
    """What one node says. Every call takes the next seqs; the same seed says the same, in another epoch each time."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name = name
        self.topic = topic_for(Topic(name, Channel.LIVE))
        self._rng = rng
        # Never from the seed: the same seqs of the same epoch twice would be taken for records that are known already.
        self._epoch, self._boot, self._session = (secrets.token_hex(8) for _ in range(3))
        self._next = 1
        self._has_camera = rng.random() < _CAMERAS
        self._sprung = False
        self._people = 0
        self._boot_us = 0  # UTC of mono 0, from the first call
        self._read_us = 0  # when it read its devices last

    def birth(self, now_us: int) -> tuple[str, bytes]:
        """Topic and payload."""
        birth = Birth(
            epoch=self._epoch, session=self._session, boot=self._boot, agent="satomori-sim fleet", sent=now_us,
            first=1, oldest=1, next=self._next,
            devices=[BornDevice(device=device, kind=kind, metrics=list(metrics)) for device, kind, metrics in _DEVICES],
        )  # fmt: skip
        return topic_for(Topic(self.name, Channel.BIRTH)), encode(birth)

    def state(self, *, online: bool) -> tuple[str, bytes]:
        """Topic and payload."""
        state = State(session=self._session, online=online, reason=None if online else "clean")
        return topic_for(Topic(self.name, Channel.STATE)), encode(state)

    def readings(self, now_us: int, count: int = READINGS) -> Said:
        """`count` readings up to `now_us`: one of each series and millisecond, rounds of all series 1 ms apart."""
        low, self._next = self._next, self._next + count
        rounds = (count - 1) // len(ROWS)
        # On a busy machine batches are made in bunches; a millisecond holds one reading of a series.
        now_us = self._read_us = max(now_us, self._read_us + (rounds + 1) * 1000)
        rows = []
        for number in range(count):
            device, metric = ROWS[number % len(ROWS)]
            dt = (number // len(ROWS) - rounds) * 1000
            rows.append(f'[{low + number},{dt},"{device}","{metric}",{self._value(metric, now_us)}]')
        return Said(self._batch(now_us, ",".join(rows), ""), low, self._next - 1)

    def event(self, now_us: int, *, alarm: bool = False) -> Said:
        """One event: most are sightings; a node with a camera says pictures, too; few are of traps (sprung, reset in turn), or
        all of them with `alarm`.
        """
        seq = self._next
        self._next += 1
        what = 1.0 if alarm else self._rng.random()
        if what < 0.7 or (what < 0.98 and not self._has_camera):
            body = f'"device":"tags","type":"tag_seen","class":"sighting","tag":"ibeacon:{self.name}:1:7","rssi":-70,"frames":60'
        elif what < 0.98:
            body = (
                '"device":"cam-1","type":"media_captured","class":"evidence",'
                f'"media":"{self._rng.getrandbits(256):064x}","size":48213,"content_type":"image/jpeg"'
            )
        else:
            self._sprung = not self._sprung
            body = f'"device":"trap-1","type":"trap_{"sprung" if self._sprung else "reset"}","class":"alarm","folded":0'
        return Said(self._batch(now_us, "", f'{{"seq":{seq},"dt":0,{body}}}'), seq, seq)

    @property
    def epoch(self) -> str:
        """What this node's seqs count in."""
        return self._epoch

    def _value(self, metric: str, now_us: int) -> float:
        if metric == "heartbeat":
            return (now_us - self._boot_us) / 1e6
        if metric in ("count_in", "count_out"):
            self._people += self._rng.random() < 0.05
            return self._people
        if metric == "tags_near":
            return 2
        if metric == "rssi":
            return -60 - self._rng.randrange(30)
        if metric == "cpu_temperature":
            return 40 + self._rng.randrange(150) / 10
        if metric == "memory_free":
            return 250_000_000 + self._rng.randrange(1000) * 4096
        return 0

    def _batch(self, now_us: int, readings: str, events: str) -> bytes:
        self._boot_us = self._boot_us or now_us - 3_600_000_000
        return (
            f'{{"v":1,"epoch":"{self._epoch}","boot":"{self._boot}","clock":"sync","t0":{now_us},'
            f'"mono0":{now_us - self._boot_us},"sent":{now_us},"sent_mono":{now_us - self._boot_us},'
            f'"readings":[{readings}],"events":[{events}],"lost":[]}}'
        ).encode()


def make_nodes(count: int, seed: int) -> list[FleetNode]:
    """Nodes of a seed; another seed gives others."""
    return [FleetNode(f"fleet-{seed}-{number:04d}", random.Random(f"{seed}/{number}")) for number in range(count)]


@dataclass(slots=True)
class FleetReport:
    """What became of it all. Nothing is counted as acked that a node's own ack did not name."""

    seconds: float = 0
    """How long records were produced; the wait for the last acks comes on top."""
    messages: int = 0
    """Batches, each counted once."""
    produced: int = 0
    acked: int = 0
    """Records that the gateway called durable or refused for good."""
    rejected: int = 0
    resent: int = 0
    """Batches that were sent again."""
    behind: int = 0
    """Batches that should have been sent by the end but that this machine was too slow to make."""
    ack_p50_ms: float | None = None
    """From the first publish of a batch to its ack; None when nothing was acked."""
    ack_p95_ms: float | None = None

    @property
    def lost(self) -> int:
        """Records that nobody answered for in time."""
        return self.produced - self.acked


@dataclass(slots=True)
class _Flight:
    said: Said
    first_s: float  # when it was published first, monotonic
    due_s: float  # when it is published again


@dataclass(slots=True)
class _Waiting:
    """One node, and what of it is on its way, in order of seq."""

    node: FleetNode
    flights: dict[int, _Flight] = field(default_factory=dict)  # by highest seq


class Fleet:
    """`run` plays the nodes at a rate of batches a second, evenly over nodes and connections."""

    def __init__(
        self,
        url: str,
        *,
        nodes: int | Sequence[FleetNode] = 200,
        rate: float = 500,
        connections: int = 4,
        events: float = 0.05,
        seed: int | None = None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """`nodes`: how many, or which. `events` is the share of batches that hold an event. Without a seed it is another fleet
        each time.
        """
        count = nodes if isinstance(nodes, int) else len(nodes)
        if count < 1 or rate <= 0 or connections < 1 or not 0 <= events <= 1:
            raise ValueError("a fleet needs a node, a rate above 0, a connection, and a share of events from 0 to 1")
        self._now_us = now_us
        self._seed = random.SystemRandom().randrange(10**6) if seed is None else seed
        self._rng = random.Random(self._seed)
        self._rate, self._events = rate, events
        self._nodes = [_Waiting(node) for node in (make_nodes(nodes, self._seed) if isinstance(nodes, int) else nodes)]
        used = min(connections, count)
        self._lines = [_Line(url, f"fleet-{self._seed}-{n}", self._nodes[n::used], self._on_ack) for n in range(used)]
        self._line_of = [self._lines[number % used] for number in range(count)]
        self._report = FleetReport()
        self._took_s: list[float] = []

    def run(self, for_s: float, *, drain_s: float = 30, enough: Callable[[], bool] = lambda: False) -> FleetReport:
        """Plays for so long, or until it is `enough`, then waits up to `drain_s` for the acks that are still due. OSError when
        no broker is there.
        """
        report = self._report = FleetReport()
        self._took_s.clear()
        for line in self._lines:
            line.connect()  # the first time, a broker that is not there is told to the caller
        self._wait_until_up()
        begun = time.monotonic()
        look_at = begun + _LOOK_S
        made = 0
        while (now := time.monotonic()) < begun + for_s and not enough():
            due = min(int((now - begun) * self._rate) - made, 200)  # in small steps, or no ack would be read meanwhile
            for number in range(made, made + due):
                self._say(number % len(self._nodes), now)
            made += due
            self._turn(now, 1 / self._rate)
            if now >= look_at:
                look_at = now + _LOOK_S
                self._look(now)
        report.seconds = now - begun
        report.behind = max(int(report.seconds * self._rate) - made, 0)
        give_up = now + drain_s
        while any(waiting.flights for waiting in self._nodes) and (now := time.monotonic()) < give_up:
            self._turn(now, 0.05)
            if now >= look_at:
                look_at = now + _LOOK_S
                self._look(now)
        for line in self._lines:
            line.leave()
        if len(self._took_s) > 1:
            cuts = statistics.quantiles(self._took_s, n=100, method="inclusive")
            report.ack_p50_ms, report.ack_p95_ms = cuts[49] * 1000, cuts[94] * 1000
        return report

    def _wait_until_up(self) -> None:
        give_up = time.monotonic() + _PATIENCE_S
        while not all(line.up for line in self._lines):
            now = time.monotonic()
            if now > give_up:
                raise TimeoutError(f"it did not take connection and subscriptions within {_PATIENCE_S:g} s")
            self._turn(now, 0.05)

    def _say(self, number: int, now: float) -> None:
        waiting = self._nodes[number]
        make = waiting.node.event if self._rng.random() < self._events else waiting.node.readings
        said = make(self._now_us())
        waiting.flights[said.high] = _Flight(said, now, now + _RESEND_S)
        self._report.messages += 1
        self._report.produced += said.high - said.low + 1
        self._line_of[number].publish(waiting.node.topic, said.payload)

    def _turn(self, now: float, wait_s: float) -> None:
        """Lets every connection read and write what it can."""
        sockets = {sock: line for line in self._lines if (sock := line.socket()) is not None}
        writing = [sock for sock, line in sockets.items() if line.wants_write()]
        readable, writable, _ = select.select(list(sockets), writing, [], wait_s)
        for sock in readable:
            sockets[sock].read()
        for sock in writable:
            sockets[sock].write()
        if not sockets:
            time.sleep(min(wait_s, 0.05))
        for line in self._lines:
            line.keep_up(now, self._now_us())

    def _look(self, now: float) -> None:
        """Sends again what has waited for too long, and all of it where a connection is new."""
        for number, waiting in enumerate(self._nodes):
            line = self._line_of[number]
            for flight in waiting.flights.values():
                if line.up and (flight.due_s <= now or flight.due_s - _RESEND_S < line.up_since_s):
                    flight.due_s = now + _RESEND_S
                    self._report.resent += 1
                    line.publish(waiting.node.topic, flight.said.payload)

    def _on_ack(self, waiting: _Waiting, payload: bytes) -> None:
        now = time.monotonic()
        ack = Ack.model_validate_json(payload)
        if ack.epoch != waiting.node.epoch:
            return
        self._report.rejected += len(ack.rejected)
        refused = [(seq, seq) for seq, _ in ack.rejected]
        known = [(1, ack.upto), *ack.ranges, *refused]
        done = [
            high
            for high, flight in waiting.flights.items()
            if any(first <= flight.said.low and high <= last for first, last in known)
        ]
        for high in done:
            flight = waiting.flights.pop(high)
            self._report.acked += high - flight.said.low + 1
            self._took_s.append(now - flight.first_s)
        if ack.wait_s:
            for flight in waiting.flights.values():
                flight.due_s = max(flight.due_s, now + ack.wait_s)


class _Line:
    """One MQTT connection, for some of the nodes. What is published while it is down is dropped: `_look` sends it again."""

    def __init__(self, url: str, client_id: str, nodes: list[_Waiting], on_ack: Callable[[_Waiting, bytes], None]) -> None:
        self._host, self._port, _ = parse_url(url)
        self._client_id, self._nodes, self._on_ack = client_id, nodes, on_ack
        self._by_topic = {topic_for(Topic(one.node.name, Channel.ACK)): one for one in nodes}
        self._client: mqtt.Client | None = None
        self._connect_at = 0.0  # when the next attempt may be made
        self._misc_at = 0.0
        self._unsubscribed = 0
        self.up = False
        """Whether the broker took the connection and every subscription."""
        self.up_since_s = 0.0

    def connect(self) -> None:
        """OSError when nobody is there."""
        self._connect_at = time.monotonic() + _RECONNECT_S
        client = mqtt.Client(CallbackAPIVersion.VERSION2, self._client_id, protocol=MQTTProtocolVersion.MQTTv311)
        client.max_inflight_messages_set(1000)
        client.connect_timeout = 5
        client.on_connect, client.on_subscribe, client.on_message = self._connected, self._subscribed, self._message
        client.connect(self._host, self._port, keepalive=30)
        self._client = client

    def socket(self) -> Any:
        """To wait on; None while there is no connection."""
        return self._client.socket() if self._client is not None else None

    def wants_write(self) -> bool:
        """Whether something waits to be written."""
        return self._client is not None and self._client.want_write()

    def publish(self, topic: str, payload: bytes) -> None:
        """QoS 1."""
        if self._client is not None and self.up:
            self._client.publish(topic, payload, qos=1)

    def read(self) -> None:
        """What is there."""
        if self._client is not None:
            self._check(self._client.loop_read())

    def write(self) -> None:
        """What waits."""
        if self._client is not None:
            self._check(self._client.loop_write())

    def keep_up(self, now: float, now_us: int) -> None:
        """Pings, and connects again after a while when the connection is gone."""
        if self._client is not None:
            if now >= self._misc_at:
                self._misc_at = now + 1.0
                self._check(self._client.loop_misc())
            if not self.up and now >= self._connect_at + _PATIENCE_S / 2:
                self._check(MQTTErrorCode.MQTT_ERR_CONN_LOST)  # taken, and then not a word
        elif now >= self._connect_at:
            try:
                self.connect()
            except OSError:
                pass  # it is tried again, and what is not acked is counted
        if self.up and not self.up_since_s:
            self.up_since_s = now
            for one in self._nodes:
                for topic, payload in (one.node.birth(now_us), one.node.state(online=True)):
                    self.publish(topic, payload)  # not retained: nothing of a load test stays in the broker

    def leave(self) -> None:
        """Says goodbye for the nodes and disconnects."""
        for one in self._nodes:
            self.publish(*one.node.state(online=False))
        deadline = time.monotonic() + 2
        while self.wants_write() and time.monotonic() < deadline:
            self.write()
        if self._client is not None:
            self._client.disconnect()
        self._client, self.up, self.up_since_s = None, False, 0.0

    def _check(self, code: MQTTErrorCode) -> None:
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            if self._client is not None:
                self._client.disconnect()
            self._client, self.up, self.up_since_s = None, False, 0.0

    def _connected(
        self, client: mqtt.Client, _data: object, _flags: mqtt.ConnectFlags, code: ReasonCode, _p: Properties | None
    ) -> None:
        if code.is_failure:
            client.disconnect()
            return
        # QoS 0: NATS has room for only seven subscriptions of QoS 1 in a session. An ack that is lost is asked for again.
        topics = [(topic, 0) for topic in self._by_topic]
        parts = [topics[start : start + _SUBSCRIBE_AT_ONCE] for start in range(0, len(topics), _SUBSCRIBE_AT_ONCE)]
        self._unsubscribed = len(parts)
        for part in parts:
            client.subscribe(part)

    def _subscribed(self, client: mqtt.Client, _data: object, _mid: int, codes: list[ReasonCode], _p: Properties | None) -> None:
        if any(code.is_failure for code in codes):  # a broker that has only just started may do that
            client.disconnect()
            return
        self._unsubscribed -= 1
        self.up = self._unsubscribed == 0

    def _message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self._on_ack(self._by_topic[message.topic], bytes(message.payload))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `satomori-sim fleet`."""
    parser.add_argument("url", help="The broker: mqtt://host:port.")
    parser.add_argument("--nodes", type=int, default=200, help="How many nodes (200).")
    parser.add_argument("--rate", type=float, default=500, help="Batches a second, of all nodes together (500).")
    parser.add_argument("--for", type=float, default=30, dest="for_s", help="Seconds (30).")
    parser.add_argument("--connections", type=int, default=4, help="MQTT connections that the nodes share (4).")
    parser.add_argument("--events", type=float, default=0.05, help="Share of batches that hold an event (0.05).")
    parser.add_argument(
        "--seed", type=int, help="The same seed is the same nodes, with new epochs; other nodes each time without."
    )
    parser.add_argument("--json", action="store_true", help="One JSON object on stdout, for programs.")


def run_command(arguments: argparse.Namespace) -> int:
    """Plays a fleet. 0 when every record was answered for, 1 when not or when no broker is there, 2 for wrong usage."""
    try:
        fleet = Fleet(
            arguments.url,
            nodes=arguments.nodes,
            rate=arguments.rate,
            connections=arguments.connections,
            events=arguments.events,
            seed=arguments.seed,
        )
    except ValueError as error:
        print(f"satomori-sim fleet: {error}", file=sys.stderr)
        return 2
    try:
        report = fleet.run(arguments.for_s)
    except OSError as error:
        print(f"satomori-sim fleet: no broker at {arguments.url}: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps({"ok": report.lost == 0, **asdict(report), "lost": report.lost}))
    else:
        print(
            f"{report.messages} batches in {report.seconds:.1f} s, {report.produced} records, {report.acked} acked, "
            f"{report.rejected} refused, {report.lost} unanswered, {report.resent} batches sent again"
        )
        if report.ack_p50_ms is not None and report.ack_p95_ms is not None:
            print(f"publish to ack: {report.ack_p50_ms:.1f} ms p50, {report.ack_p95_ms:.1f} ms p95")
        if report.behind:
            print(f"this machine was too slow: {report.behind} batches were not made in time")
    return 0 if report.lost == 0 else 1


def main(argv: list[str] | None = None) -> int:
    """The command by itself."""
    parser = argparse.ArgumentParser(prog="satomori-sim fleet", description="Plays many nodes against a broker, and counts acks.")
    add_arguments(parser)
    return run_command(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
