"""Ingest over real brokers: nothing stalls, nothing is acknowledged before its time, every broken link is mended."""

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from paho.mqtt.client import Client, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from edge.clock import Instant
from edge.contract.topics import Channel, Topic, partition_of, topic_for
from edge.lanes import pack
from edge.outbox import Row
from gateway import ingest as ingest_module
from gateway.flush import Answer
from gateway.ingest import GatewayBrokerConfig, Held, Ingest, is_waited_for
from gateway.nodes.authority import init
from gateway.pipeline import Message
from gateway.telemetry import Telemetry
from simulators.broker import Broker, BrokerMissingError, mosquitto, nats
from simulators.ports import free_port
from tests.gateway.town import NODE, NOW_US, SECOND_US, locked

UP = topic_for(Topic(NODE, Channel.LIVE))
DOWN = topic_for(Topic(NODE, Channel.ACK))
WAIT_S = 30


def impatient_nats(folder: Path) -> Broker:
    """It gives to a new connection what the last one did not acknowledge only after this long."""
    return nats(folder, ack_wait_s=2)


def quick_mosquitto(folder: Path) -> Broker:
    """It saves nothing while it runs; no test here asks it to remember over a kill."""
    return mosquitto(folder, save_every=0)


@pytest.fixture(params=[impatient_nats, pytest.param(quick_mosquitto, marks=pytest.mark.services)], ids=["nats", "mosquitto"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    try:
        running = request.param(tmp_path / "broker")
    except BrokerMissingError as error:
        if os.environ.get("SATOMORI_REQUIRE_SERVICES") == "1":
            raise
        pytest.skip(str(error))
    with running:
        yield running


class Processor:
    """What ingest hands its groups to: notes them, and does what the test says before it returns."""

    def __init__(self, before: Callable[[list[Message]], None] = lambda _: None, *, answers: bool = False) -> None:
        self._before, self._answers = before, answers
        self._news = threading.Condition()
        self.groups: list[list[Message]] = []
        self.away: list[int | None] = []
        self.ticks: list[int | None] = []

    def process(self, messages: list[Message], now_us: int, away_since_us: int | None) -> list[Answer]:
        self._before(messages)
        with self._news:
            self.groups.append(messages)
            self.away.append(away_since_us)
            self._news.notify_all()
        if not self._answers:
            return []
        return [Answer(DOWN, b"ack of " + message.payload, message.payload == b"surely") for message in messages]

    def save(self) -> None:
        """Nothing is remembered."""

    def anew(self) -> None:
        """Remembers nothing."""

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        with self._news:
            self.ticks.append(listening_since_us)
            self._news.notify_all()

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for group in self.groups for message in group]

    def wait_for(self, condition: Callable[[], object]) -> None:
        with self._news:
            assert self._news.wait_for(condition, WAIT_S), f"in vain; {len(self.payloads)} messages came"


class Gateway:
    """An Ingest in a thread of its own, its clock the test's."""

    def __init__(self, broker: Broker, processor: Processor, listened_until_us: int | None = None) -> None:
        self.now_us = NOW_US
        config = GatewayBrokerConfig(url=broker.url, backoff_cap_s=0.2)
        self.ingest = Ingest(config, processor, Telemetry(), random.Random(1), lambda: self.now_us, listened_until_us)
        self.processor = processor
        self._errors: list[SystemError] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.ingest.run()
        except SystemError as error:
            self._errors.append(error)

    def __enter__(self) -> "Gateway":
        self._thread.start()
        self.processor.wait_for(lambda: any(since is not None for since in self.processor.ticks))
        return self

    def __exit__(self, *_: object) -> None:
        self.ingest.stop()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    def dies(self) -> SystemError:
        """Waits for the error that ends it."""
        self._thread.join(WAIT_S)
        return self._errors[0]


class Node:
    """A client that publishes, each message with the broker's word that it has it, and hears what comes down."""

    def __init__(self, broker: Broker, name: str = "node", *, listens: str = DOWN, comes_back: bool = False) -> None:
        """`comes_back`: the broker keeps its session, as it does an edge's."""
        self.heard: list[bytes] = []
        self._news = threading.Condition()
        self._ready = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, name, clean_session=not comes_back, protocol=MQTTv311)
        self._client.max_inflight_messages_set(2000)
        self._client.on_connect = lambda client, *_: client.subscribe(listens, 1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _c, _u, message: self._hear(bytes(message.payload))
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        assert self._ready.wait(WAIT_S)

    def _hear(self, payload: bytes) -> None:
        with self._news:
            self.heard.append(payload)
            self._news.notify_all()

    def publish(self, *payloads: bytes, topic: str = UP, retain: bool = False) -> None:
        for info in [self._client.publish(topic, payload, 1, retain) for payload in payloads]:
            info.wait_for_publish(WAIT_S)

    def wait_for(self, count: int) -> None:
        with self._news:
            assert self._news.wait_for(lambda: len(set(self.heard)) >= count, WAIT_S)

    def __enter__(self) -> "Node":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        # Or it and its sockets are left to the garbage collector together, which may complain of an open one.
        self._client.on_subscribe = self._client.on_message = None


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%06d" % number for number in range(start, start + count)]


def test_more_messages_in_flight_than_any_window_do_not_stall(broker: Broker) -> None:
    """The first group waits until thousands lie in the broker; a gateway that waited for more before it acked would hang."""
    go = threading.Event()

    def wait(_: list[Message]) -> None:
        go.wait(WAIT_S)

    processor = Processor(wait, answers=True)
    with Gateway(broker, processor), Node(broker) as node:
        node.publish(*numbered(2500))
        go.set()
        processor.wait_for(lambda: len(set(processor.payloads)) == 2500)
        node.wait_for(2500)
        assert set(node.heard) == {b"ack of " + payload for payload in numbered(2500)}


def test_what_was_not_processed_was_not_acknowledged(broker: Broker) -> None:
    """The gateway dies between taking messages and being done with them: the next one gets them all."""

    def die(_: list[Message]) -> None:
        raise SystemError("the process ends here")

    gateway = Gateway(broker, Processor(die))
    with Node(broker) as node, gateway:
        node.publish(*numbered(50))
        assert isinstance(gateway.dies(), SystemError)
        node.publish(*numbered(50, start=50))
    survivor = Processor()
    with Gateway(broker, survivor):
        survivor.wait_for(lambda: set(survivor.payloads) == set(numbered(100)))


def test_what_was_processed_is_not_delivered_again(broker: Broker) -> None:
    first, second = Processor(answers=True), Processor()
    with Node(broker) as node:
        with Gateway(broker, first):
            node.publish(*numbered(200))
            node.wait_for(200)
        with Gateway(broker, second):
            node.publish(b"last")
            second.wait_for(lambda: b"last" in second.payloads)
    assert second.payloads == [b"last"]


def said_by_a_node(*rows: str) -> bytes:
    """A batch as an edge writes it: readings as `"trap-1","rssi",-70`, events as `{...}`."""
    boot, now = "b" * 16, Instant(NOW_US, SECOND_US)
    made = [Row(seq, 0, boot, "sync", *now, body) for seq, body in enumerate(rows, 1)]
    [(payload, _)] = pack("a" * 16, boot, made, now)
    return payload


READING = '"trap-1","battery_v",3.6'
FIRST = said_by_a_node(READING, READING, READING)
SPRUNG = '{"device":"trap-1","type":"trap_sprung","class":"alarm"}'
SEEN = '{"device":"tags","type":"tag_seen","class":"sighting","tag":"ibeacon:a:1:7","rssi":-70,"frames":60}'
LEFT = '{"device":"tags","type":"tag_left","class":"sighting","tag":"ibeacon:a:1:7","rssi":-70}'


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Callable[[Processor, Node], None]:
    """From when it is called, readings are held for an hour, and the next tick is as far away."""

    def hold(processor: Processor, node: Node) -> None:
        for pause in ("HELD_S", "TICK_S", "QUIET_S"):
            monkeypatch.setattr(ingest_module, pause, 3600.0)
        ticked = len(processor.ticks)
        processor.wait_for(lambda: len(processor.ticks) > ticked)
        node.publish(FIRST)  # after a silence
        processor.wait_for(lambda: processor.payloads == [FIRST])

    return hold


def test_live_readings_are_held_until_they_are_a_whole_group(
    broker: Broker, held: Callable[[Processor, Node], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = Processor()
    with Gateway(broker, processor), Node(broker) as node:
        monkeypatch.setattr(ingest_module, "GROUP", 50)
        held(processor, node)
        node.publish(*[said_by_a_node(READING)] * 50)
        processor.wait_for(lambda: len(processor.payloads) > 50)
    assert [len(group) for group in processor.groups] == [1, 50]


def test_live_readings_are_held_until_their_burst_is_over(
    broker: Broker, held: Callable[[Processor, Node], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = Processor()
    with Gateway(broker, processor), Node(broker) as node:
        held(processor, node)
        monkeypatch.setattr(ingest_module, "QUIET_S", 0.05)
        node.publish(*[said_by_a_node(READING)] * ingest_module.ENOUGH)
        processor.wait_for(lambda: len(processor.payloads) > ingest_module.ENOUGH)


@pytest.mark.services
def test_a_broker_that_waits_for_our_word_early_has_it_for_what_is_held(
    tmp_path: Path, held: Callable[[Processor, Node], None]
) -> None:
    """Else neither the rest of the readings nor the event behind them came before the next tick."""
    processor = Processor()
    slow = mosquitto(tmp_path / "broker", save_every=0, in_flight=ingest_module.ENOUGH)
    with slow, Gateway(slow, processor), Node(slow) as node:
        held(processor, node)
        node.publish(*[said_by_a_node(READING)] * 3 * ingest_module.ENOUGH, said_by_a_node(SPRUNG))
        processor.wait_for(lambda: said_by_a_node(SPRUNG) in processor.payloads)
        assert processor.payloads == [FIRST, said_by_a_node(SPRUNG)]


def test_an_event_overtakes_the_readings_that_are_held_and_a_stop_loses_none_of_them(
    broker: Broker, held: Callable[[Processor, Node], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    readings, sprung = said_by_a_node(READING, READING), said_by_a_node(SPRUNG)
    processor, next_one = Processor(answers=True), Processor()
    with Node(broker) as node:
        with Gateway(broker, processor):
            held(processor, node)
            node.publish(readings)
            node.publish(sprung)
            processor.wait_for(lambda: sprung in processor.payloads)
        node.wait_for(3)
        monkeypatch.undo()
        with Gateway(broker, next_one):
            node.publish(b"last")
            next_one.wait_for(lambda: next_one.payloads)
    assert [[message.payload for message in group] for group in processor.groups] == [[FIRST], [sprung], [readings]]
    assert next_one.payloads == [b"last"], "the broker had our word for all of them"


def test_an_event_overtakes_no_event_of_its_own_node(broker: Broker, held: Callable[[Processor, Node], None]) -> None:
    """A tag that left was there before: told the other way round it would have come back."""
    processor = Processor()
    seen, left, readings = said_by_a_node(SEEN), said_by_a_node(LEFT), said_by_a_node(READING)
    with Gateway(broker, processor), Node(broker) as node:
        held(processor, node)
        other = topic_for(Topic("nishi-01", Channel.LIVE))
        node.publish(seen, topic=other)
        node.publish(seen)
        node.publish(readings)
        node.publish(left)
        processor.wait_for(lambda: left in processor.payloads)
    groups = [[(message.topic, message.payload) for message in group] for group in processor.groups]
    assert groups == [[(UP, FIRST)], [(UP, seen), (UP, left)], [(other, seen), (UP, readings)]]


def test_no_more_is_held_than_a_group_has_room_for(
    broker: Broker, held: Callable[[Processor, Node], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    readings, sprung = said_by_a_node(READING, READING), said_by_a_node(SPRUNG)
    processor = Processor()
    with Gateway(broker, processor), Node(broker) as node:
        monkeypatch.setattr(ingest_module, "GROUP", 3)
        held(processor, node)
        for number in range(2):
            node.publish(readings)
            node.publish(sprung)
            processor.wait_for(lambda: processor.payloads.count(sprung) == number + 1)  # noqa: B023 - called here and now
        assert processor.payloads.count(readings) == 2, "three of one and one of the other are more than a group"


def test_live_readings_wait_for_the_next_tick_and_no_longer(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = [said_by_a_node(READING, *[READING] * more) for more in range(2)]
    processor = Processor()
    with Gateway(broker, processor), Node(broker) as node:
        monkeypatch.setattr(ingest_module, "HELD_S", 3600.0)
        for payload in readings:
            node.publish(payload)
            processor.wait_for(lambda: processor.payloads[-1:] == [payload])  # noqa: B023 - called here and now
    assert processor.payloads == readings


@pytest.mark.parametrize(
    ("channel", "payload", "waited_for"),
    [
        (Channel.LIVE, said_by_a_node(READING), False),
        (Channel.LIVE, said_by_a_node(SPRUNG), True),
        (Channel.LIVE, said_by_a_node(READING, SPRUNG), True),
        (Channel.LIVE, said_by_a_node(READING, SEEN, SEEN), False),
        (Channel.LIVE, said_by_a_node(SEEN, LEFT), True),
        (Channel.LIVE, said_by_a_node(SEEN, SPRUNG), True),
        (Channel.LIVE, b'{ "events": [] }', True),  # it may be anything
        (Channel.LIVE, b'{"events":[{"type":"tag_seen"},{"type": "trap_sprung"}]}', True),
        (Channel.BACKLOG, said_by_a_node(READING), True),  # with more of it behind
        (Channel.BIRTH, b"{}", True),
        (Channel.STATE, b"{}", True),
    ],
)
def test_what_somebody_waits_for(channel: Channel, payload: bytes, waited_for: bool) -> None:
    assert is_waited_for(Message(topic_for(Topic(NODE, channel)), payload)) is waited_for


def test_only_an_answer_that_must_arrive_waits_for_a_node_that_is_away(broker: Broker) -> None:
    """What it sent besides it sends again: no broker need keep acks for a node that may never come back."""
    taken, go = threading.Event(), threading.Event()

    def wait(_: list[Message]) -> None:
        taken.set()
        go.wait(WAIT_S)

    processor = Processor(wait, answers=True)
    with Gateway(broker, processor), Node(broker, "witness") as witness:
        with Node(broker, comes_back=True) as node:
            node.publish(b"record")
            assert taken.wait(WAIT_S)
            node.publish(b"surely")
        go.set()
        witness.wait_for(2)
        with Node(broker, comes_back=True) as node:
            node.wait_for(1)
            node.publish(b"record again")
            node.wait_for(2)
    assert set(node.heard) == {b"ack of surely", b"ack of record again"}


def test_each_node_is_answered_in_the_session_of_its_partition(broker: Broker) -> None:
    """Where this process hears some partitions only, each in a session of its own; others speak to the nodes of the others."""
    ours, others = ["hiroba", "nishi-01"], "kitayama-03"

    class Some:
        def look(self, since_us: Mapping[int, int | None]) -> tuple[list[Held], list[int]]:
            return [Held(at, None, None) for node in ours if (at := partition_of(node)) not in since_us], []

        def let_go(self, partitions: list[int]) -> None:
            """None ever is."""

    class Answering(Processor):
        def process(self, messages: list[Message], now_us: int, away_since_us: int | None) -> list[Answer]:
            super().process(messages, now_us, away_since_us)
            return [
                Answer(topic_for(Topic(node, Channel.ACK)), node.encode(), messages[0].payload == b"surely")
                for node in (*ours, others)
            ]

    processor = Answering()
    config = GatewayBrokerConfig(url=broker.url)
    ingest = Ingest(config, processor, Telemetry(), random.Random(1), lambda: NOW_US, None, partitions=Some())
    thread = threading.Thread(target=ingest.run)
    thread.start()
    try:
        processor.wait_for(lambda: all(ingest.hears(node) for node in ours))
        with Node(broker, listens="satomori/v1/+/+/down/ack") as node:
            for said in (b"said", b"surely"):
                node.heard.clear()
                node.publish(said, topic=topic_for(Topic(ours[0], Channel.LIVE)))
                node.wait_for(2)
                assert set(node.heard) == {b"hiroba", b"nishi-01"}
    finally:
        ingest.stop()
        thread.join(WAIT_S)


def test_a_partition_that_is_let_go_of_before_it_was_heard_is_left_to_who_hears_it_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """To connect with its name once more would take the session away from them."""
    monkeypatch.setattr(ingest_module, "TICK_S", 0.02)
    gone = list[int]()

    class Moving:
        def look(self, since_us: Mapping[int, int | None]) -> tuple[list[Held], list[int]]:
            return ([], list(since_us)) if since_us or gone else ([Held(7, None, None)], [])

        def let_go(self, partitions: list[int]) -> None:
            gone.extend(partitions)

    processor = Processor()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        config = GatewayBrokerConfig(url=f"mqtt://127.0.0.1:{silent.getsockname()[1]}")
        ingest = Ingest(config, processor, Telemetry(), random.Random(1), lambda: NOW_US, None, partitions=Moving())
        thread = threading.Thread(target=ingest.run)
        thread.start()
        try:
            processor.wait_for(lambda: len(processor.ticks) >= 5)
            assert gone == [7]
        finally:
            ingest.stop()
            thread.join(WAIT_S)
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_what_the_gateway_says_as_a_node_comes_back_to_it_through_the_broker(broker: Broker) -> None:
    """Also what it said before it was connected."""
    canary = topic_for(Topic("canary", Channel.LIVE))
    processor = Processor()
    gateway = Gateway(broker, processor)
    gateway.ingest.publish(canary, b"early")
    with gateway:
        processor.wait_for(lambda: processor.payloads == [b"early"])
        gateway.ingest.publish(canary, b"now")
        processor.wait_for(lambda: processor.payloads == [b"early", b"now"])
    assert {message.topic for group in processor.groups for message in group} == {canary}


def test_a_broker_killed_and_emptied_is_found_again_and_listened_to(broker: Broker) -> None:
    processor = Processor()
    with Gateway(broker, processor) as gateway:
        with Node(broker) as node:
            node.publish(b"before")
            processor.wait_for(lambda: b"before" in processor.payloads)
        gateway.now_us += 100 * SECOND_US
        broker.wipe()
        processor.wait_for(lambda: processor.ticks[-1] is None)
        assert "broker not connected" in (gateway.ingest.fault or "")
        gateway.now_us += 900 * SECOND_US
        broker.start()
        processor.wait_for(lambda: processor.ticks[-1] is not None)
        assert gateway.ingest.fault is None
        assert processor.ticks[-1] == NOW_US + 1000 * SECOND_US, "silence counts from now"
        with Node(broker) as node:
            node.publish(b"after")
            processor.wait_for(lambda: b"after" in processor.payloads)
        assert processor.away[-1] == NOW_US + 100 * SECOND_US, "messages may have waited since then"


def test_time_passes_for_the_rules_without_a_broker(tmp_path: Path) -> None:
    processor = Processor()
    with nats(tmp_path) as broker:
        pass
    config = GatewayBrokerConfig(url=broker.url, backoff_cap_s=0.1)
    ingest = Ingest(config, processor, Telemetry(), random.Random(1), lambda: NOW_US, None)
    thread = threading.Thread(target=ingest.run)
    thread.start()
    try:
        processor.wait_for(lambda: len(processor.ticks) >= 2)
        assert set(processor.ticks) == {None}
        assert ingest.fault is not None
    finally:
        ingest.stop()
        thread.join(WAIT_S)


def test_a_locked_database_holds_messages_and_loses_none(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "TICK_S", 0.02)
    left = [5]
    held = threading.Event()

    def lock(messages: list[Message]) -> None:
        if left[0]:
            left[0] -= 1
            held.set()
            raise locked()

    processor = Processor(lock, answers=True)
    with Gateway(broker, processor) as gateway, Node(broker) as node:
        node.publish(b"first")
        assert held.wait(WAIT_S)
        gateway.now_us += 3600 * SECOND_US
        node.wait_for(1)
        node.publish(b"second")
        node.wait_for(2)
        assert processor.payloads == [b"first", b"second"]
        assert gateway.ingest.fault is None
        assert processor.away[-1] == NOW_US, "the second may have waited in the broker as long as we did"


def test_a_gateway_that_is_stopped_while_it_holds_messages_acknowledges_none(broker: Broker) -> None:
    held = threading.Event()

    def lock(_: list[Message]) -> None:
        held.set()
        raise locked()

    with Node(broker) as node:
        with Gateway(broker, Processor(lock)):
            node.publish(b"held")
            assert held.wait(WAIT_S)
        after = Processor()
        with Gateway(broker, after):
            after.wait_for(lambda: after.payloads == [b"held"])


def test_what_the_broker_remembers_is_told_from_what_is_said_now(broker: Broker) -> None:
    processor = Processor()
    birth = topic_for(Topic(NODE, Channel.BIRTH))
    with Node(broker) as node:
        node.publish(b"old", topic=birth, retain=True)
        with Gateway(broker, processor):
            node.publish(b"new", topic=birth, retain=True)
            processor.wait_for(lambda: b"new" in processor.payloads)
    said = {message.payload: message.retained for group in processor.groups for message in group}
    assert said == {b"old": True, b"new": False}


def publish_raw(port: int, topic: bytes, payload: bytes) -> None:
    """One PUBLISH, QoS 0, from a client that checks nothing."""

    def packet(kind: int, body: bytes) -> bytes:
        assert len(body) < 128
        return bytes([kind, len(body)]) + body

    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as connection:
        connection.sendall(packet(0x10, bytes.fromhex("0004 4d515454 04 02 003c 0003") + b"raw"))
        assert connection.recv(4)[0] == 0x20
        connection.sendall(packet(0x30, len(topic).to_bytes(2, "big") + topic + payload))
        with contextlib.suppress(OSError):  # some brokers hang up on this
            connection.sendall(b"\xe0\x00")
            connection.recv(1)


@pytest.mark.parametrize(
    ("topic", "is_text"),
    [(b"satomori/v1/29/\xff\xfe/up/live", False), (b"satomori/v1/29/\xe5\x8c\x97/up/live", True),
     (b"satomori/v1//" + b"x" * 60 + b"/up/live", True)],
    ids=["no UTF-8", "Japanese", "long"],
)  # fmt: skip
def test_a_hostile_topic_is_handed_on_if_it_is_text_and_stops_nothing(broker: Broker, topic: bytes, is_text: bool) -> None:
    processor = Processor()
    with Gateway(broker, processor), Node(broker) as node:
        publish_raw(broker.port, topic, b"hostile")
        node.publish(b"honest")
        processor.wait_for(lambda: b"honest" in processor.payloads)
    assert (b"hostile" in processor.payloads) is is_text


def test_a_topic_that_is_no_text_gets_a_name_that_can_be_written_down(tmp_path: Path) -> None:
    """As a broker that checks nothing would deliver it."""
    processor = Processor()
    with nats(tmp_path) as broker:
        gateway = Gateway(broker, processor)
        [session] = gateway.ingest._sessions.values()
        client = session._new_client()

    class Hostile:
        payload, mid, qos, retain = b"x", 1, 1, False
        _topic = b"satomori/\xff"

        @property
        def topic(self) -> str:
            return self._topic.decode()

    assert client.on_message is not None
    client.on_message(client, None, Hostile())  # type: ignore[arg-type]
    [arrived] = session.arrived
    arrived.topic.encode()
    assert "satomori" in arrived.topic


def test_a_refused_subscription_is_asked_for_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A broker that is short of something says so in the SUBACK; a gateway that stayed connected would be deaf for good."""
    subscribed = threading.Semaphore(0)

    def serve(listener: socket.socket, stop: threading.Event) -> None:
        while not stop.is_set():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(1000)
                connection.sendall(bytes.fromhex("20 02 00 00"))
                subscribe = connection.recv(1000)
                if not subscribe:
                    continue
                connection.sendall(b"\x90\x03" + subscribe[2:4] + b"\x80")
                subscribed.release()
                connection.recv(1000)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()
        server = threading.Thread(target=serve, args=(listener, stop), daemon=True)
        server.start()
        config = GatewayBrokerConfig(url=f"mqtt://127.0.0.1:{listener.getsockname()[1]}", backoff_cap_s=0.1)
        ingest = Ingest(config, Processor(), Telemetry(), random.Random(1), lambda: NOW_US, None)
        thread = threading.Thread(target=ingest.run)
        thread.start()
        try:
            assert subscribed.acquire(timeout=WAIT_S)
            assert subscribed.acquire(timeout=WAIT_S), "asked once and never again"
            assert "refused the subscription" in (ingest.fault or "")
        finally:
            stop.set()
            ingest.stop()
            thread.join(WAIT_S)
            with contextlib.suppress(OSError):
                socket.create_connection(listener.getsockname()).close()
            server.join(WAIT_S)
    assert sum("broker is not connected" in record.message for record in caplog.records) == 1, "said once"


def test_a_certificate_that_cannot_be_read_for_a_moment_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is being replaced: the key comes first, then the certificate that fits it."""
    files = {name: tmp_path / "authority" / f"{name}.pem" for name in ("ca", "gateway", "gateway-key")}
    init(tmp_path / "authority", ["localhost", "127.0.0.1"], time.time_ns() // 1000)
    config = GatewayBrokerConfig(
        url=f"mqtts://127.0.0.1:{free_port()}", backoff_cap_s=0.1, ca_file=files["ca"], certificate_file=files["gateway"],
        key_file=files["gateway-key"],
    )  # fmt: skip
    processor = Processor()
    ingest = Ingest(config, processor, Telemetry(), random.Random(1), lambda: NOW_US, None)
    key = files["gateway-key"].read_bytes()
    files["gateway-key"].write_bytes(b"half a ke")
    thread = threading.Thread(target=ingest.run)
    thread.start()
    try:
        processor.wait_for(lambda: processor.ticks)
        assert "certificate_file and key_file" in str(ingest.fault)
        files["gateway-key"].write_bytes(key)
        processor.wait_for(lambda: "refused" in str(ingest.fault))  # now it is the broker that is missing
    finally:
        ingest.stop()
        thread.join(WAIT_S)
    assert not thread.is_alive()
    assert len([record for record in caplog.records if record.name == "gateway.ingest"]) == 1, "said once"
