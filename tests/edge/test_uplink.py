"""The link, against real brokers where a broker's own doing counts, and against a bare socket where none would do it."""

import asyncio
import os
import queue
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from edge.agent import Agent
from edge.clock import SystemClock
from edge.contract.broker import BrokerConfig
from edge.contract.events import TrapSprung
from edge.contract.messages import Ack, Batch, encode
from edge.contract.topics import Channel, Topic, topic_for
from edge.errors import ConfigError
from edge.outbox import Outbox
from edge.records import Happened, Record
from edge.uplink import LinkWords, MqttLink, make_client
from simulators.broker import Broker, BrokerMissingError, mosquitto, nats
from simulators.ports import free_port
from tests.services import REQUIRE

WAIT_S = 20
NODE = "kitayama-03"
STATE = topic_for(Topic(NODE, Channel.STATE))
LIVE = topic_for(Topic(NODE, Channel.LIVE))
ACK = topic_for(Topic(NODE, Channel.ACK))
WORDS = LinkWords(NODE, (ACK,), STATE, b"lost")


@pytest.fixture(params=[nats, pytest.param(mosquitto, marks=pytest.mark.services)], ids=["nats", "mosquitto"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    try:
        made: Broker = request.param(tmp_path)
    except BrokerMissingError as error:
        if os.environ.get(REQUIRE) == "1":
            raise
        pytest.skip(str(error))
    with made as running:
        yield running


class Ear:
    """A listener that keeps what it hears, in order, for the test to wait for."""

    def __init__(self) -> None:
        self.heard: queue.Queue[tuple[str, str, bytes]] = queue.Queue()

    def link_up(self) -> None:
        self.heard.put(("up", "", b""))

    def link_down(self, reason: str) -> None:
        self.heard.put(("down", reason, b""))

    def received(self, topic: str, payload: bytes) -> None:
        self.heard.put(("message", topic, payload))

    def next(self) -> tuple[str, str, bytes]:
        return self.heard.get(timeout=WAIT_S)

    def until(self, what: str) -> tuple[str, str, bytes]:
        while (said := self.next())[0] != what:
            pass
        return said


@contextmanager
def linked(url: str, rng: random.Random | None = None, **settings: object) -> Iterator[tuple[MqttLink, Ear]]:
    ear = Ear()
    config = BrokerConfig.model_validate({"url": url, "backoff_cap_s": 0.2, **settings})
    link = MqttLink(config, WORDS, ear, rng or random.Random(1))
    link.start()
    try:
        yield link, ear
    finally:
        link.stop()


class Gateway:
    """Somebody on the other side: hears everything nodes say, and may answer."""

    def __init__(
        self, port: int, topics: str = "satomori/v1/+/+/up/#", answer: Callable[[Client, MQTTMessage], None] | None = None
    ) -> None:
        self.heard: queue.Queue[tuple[str, bytes, bool]] = queue.Queue()
        ready = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2, "gateway", clean_session=False, protocol=MQTTv311)
        self.client.on_connect = lambda client, *_: client.subscribe(topics, qos=1)
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_message = lambda client, _data, message: self._message(client, message, answer)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert ready.wait(WAIT_S)

    def _message(self, client: Client, message: MQTTMessage, answer: Callable[[Client, MQTTMessage], None] | None) -> None:
        self.heard.put((message.topic, bytes(message.payload), message.retain))
        if answer:
            answer(client, message)

    def __enter__(self) -> "Gateway":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def next(self) -> tuple[str, bytes, bool]:
        return self.heard.get(timeout=WAIT_S)


# Real brokers


def test_messages_go_up_and_come_down_and_a_retained_one_waits_for_who_comes_later(broker: Broker) -> None:
    with linked(broker.url) as (link, ear):
        assert ear.next()[0] == "up"
        link.publish(STATE, b"online", retain=True)
        with Gateway(broker.port) as gateway:
            topic, payload, _ = gateway.next()
            assert (topic, payload) == (STATE, b"online")
            gateway.client.publish(ACK, b"ack", qos=1)
            assert ear.next() == ("message", ACK, b"ack")


def test_a_clean_end_sends_what_is_queued_and_leaves_no_will(broker: Broker) -> None:
    with Gateway(broker.port) as gateway:
        with linked(broker.url) as (link, ear):
            ear.until("up")
            for number in range(20):
                link.publish(LIVE, b"%d" % number)
            link.publish(STATE, b"clean", retain=True)
        said = [gateway.next()[1] for _ in range(21)]
        assert said == [b"%d" % number for number in range(20)] + [b"clean"]
        gateway.client.publish(STATE, b"the end", qos=1)
        assert gateway.next()[1] == b"the end"  # and not the will


CHILD = """
import random, sys, time
from edge.contract.broker import BrokerConfig
from edge.uplink import LinkWords, MqttLink
class Ear:
    def link_up(self): print("up", flush=True)
    def link_down(self, reason): print(reason, flush=True)
    def received(self, topic, payload): pass
url, node, listen, will_topic = sys.argv[1:]
MqttLink(BrokerConfig(url=url), LinkWords(node, (listen,), will_topic, b"lost"), Ear(), random.Random(1)).start()
sys.stdin.read()
"""


def test_the_broker_speaks_the_will_of_a_node_that_was_killed(broker: Broker) -> None:
    argv = [sys.executable, "-c", CHILD, broker.url, NODE, ACK, STATE]
    with (
        Gateway(broker.port) as gateway,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as child,
    ):
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        child.send_signal(signal.SIGKILL)
        assert gateway.next()[:2] == (STATE, b"lost")
    with Gateway(broker.port) as later:
        assert later.next() == (STATE, b"lost", True)


def test_it_comes_back_after_the_broker_was_killed_and_what_was_published_meanwhile_is_dropped(broker: Broker) -> None:
    with linked(broker.url) as (link, ear):
        ear.until("up")
        broker.kill()
        ear.until("down")
        link.publish(LIVE, b"dropped")
        broker.wipe()
        broker.start()
        with Gateway(broker.port) as gateway:
            ear.until("up")
            link.publish(LIVE, b"new")
            assert gateway.next()[1] == b"new"


def test_an_event_of_an_outage_arrives_after_it(broker: Broker, tmp_path: Path) -> None:
    """The whole edge with a real broker: what was published into the void is sent again, and only its ack ends that."""
    gives = asyncio.Queue[Record]()

    class Trap:
        async def records(self):  # type: ignore[no-untyped-def]
            while True:
                yield await gives.get()

    def answer(client: Client, message: MQTTMessage) -> None:
        if message.topic.endswith(("live", "backlog")):
            batch = Batch.model_validate_json(message.payload)
            client.publish(ACK, encode(Ack(epoch=batch.epoch, upto=max(event.seq for event in batch.events))), qos=1)

    async def tale() -> None:
        outbox = Outbox(tmp_path / "outbox.db", machine="pi-1", boot="0" * 16)
        config = BrokerConfig(url=broker.url, backoff_cap_s=0.2)
        clock = SystemClock()
        agent = Agent(
            NODE,
            {"trap-11": ("reed-trap", Trap())},
            outbox,
            clock,
            lambda words, listener: MqttLink(config, words, listener, random.Random(1)),
            boot="0" * 16,
            clock_state=lambda: "sync",
            rng=random.Random(1),
        )
        with closing(outbox):
            task = asyncio.ensure_future(agent.run())
            broker.kill()
            gives.put_nowait(Happened(clock.now(), TrapSprung(device="trap-11")))
            broker.start()
            gateway = await asyncio.to_thread(Gateway, broker.port, answer=answer)
            with gateway:
                while True:
                    topic, payload, _ = await asyncio.to_thread(gateway.next)
                    if topic.endswith(("live", "backlog")):
                        break
                assert [event.type for event in Batch.model_validate_json(payload).events] == ["trap_sprung"]
                task.cancel()  # a clean end waits for acks
                await asyncio.wait([task])
                assert outbox.waiting == 0
                while (said := await asyncio.to_thread(gateway.next))[0] != STATE or b"clean" not in said[1]:
                    pass

    asyncio.run(asyncio.wait_for(tale(), 60))


def test_another_broker_can_be_used_from_now_on(broker: Broker, tmp_path: Path) -> None:
    with nats_or_skip(tmp_path / "second") as second, linked(broker.url) as (link, ear), Gateway(broker.port) as first:
        ear.until("up")
        link.publish(STATE, b"goodbye")
        link.use(BrokerConfig(url=second.url, backoff_cap_s=0.2))
        ear.until("up")
        with Gateway(second.port) as gateway:
            link.publish(LIVE, b"here")
            assert gateway.next()[1] == b"here"
        assert first.next()[1] == b"goodbye"


def nats_or_skip(folder: Path) -> Broker:
    try:
        return nats(folder)
    except BrokerMissingError as error:
        if os.environ.get(REQUIRE) == "1":
            raise
        pytest.skip(str(error))


# Failing to connect


def test_a_broker_that_is_not_there_can_be_left_at_once(tmp_path: Path) -> None:
    """Although the next attempt at the old one is an hour away."""

    class Patient(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return 3600

    with (
        nats_or_skip(tmp_path) as broker,
        linked(f"mqtt://127.0.0.1:{free_port()}", Patient(1), backoff_cap_s=3600) as (link, ear),
    ):
        assert ear.next()[0] == "down"
        with pytest.raises(ConfigError):
            link.use(BrokerConfig(url="mqtts://127.0.0.1", ca_file=tmp_path / "none"))
        link.use(BrokerConfig(url=broker.url))
        assert ear.next()[0] == "up"


class Noted(random.Random):
    """No waiting at all; notes between what and what it would have been."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.asked.append((a, b))
        return 0


def test_the_pauses_between_attempts_are_anything_from_nothing_to_a_ceiling_that_doubles_to_the_cap() -> None:
    rng = Noted()
    with linked(f"mqtt://127.0.0.1:{free_port()}", rng, backoff_cap_s=20) as (_, ear):
        reasons = [ear.next() for _ in range(8)]
    assert all(what == "down" and "Connection refused" in reason for what, reason, _ in reasons)
    assert rng.asked[:7] == [(0, 2), (0, 4), (0, 8), (0, 16), (0, 20), (0, 20), (0, 20)]


@pytest.mark.parametrize("setting", ["ca_file", "certificate_file", "key_file", "password_file"])
@pytest.mark.parametrize("how", ["missing", "garbage"])
def test_a_file_that_cannot_be_used_is_named_before_anything_starts(setting: str, how: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pem"
    if how == "garbage":
        path.write_bytes(b"\xffno certificate")
    good = tmp_path / "good.pem"
    good.write_text("only read as bytes before the key is")
    settings: dict[str, object] = {"url": "mqtts://127.0.0.1", setting: path}
    if setting == "key_file":
        settings["certificate_file"] = good
    if setting == "password_file":
        settings["username"] = NODE
    with pytest.raises(ConfigError) as refused:
        MqttLink(BrokerConfig.model_validate(settings), WORDS, Ear(), random.Random(1))
    assert str(refused.value).startswith("broker.")
    assert setting in str(refused.value)
    assert "file.pem" in str(refused.value)
    assert "can't be read: No such file" in str(refused.value) if how == "missing" else "is n" in str(refused.value)


# What no good broker would do


class Socket:
    """A listening socket that a script speaks MQTT on: one connection after the other, each to the script's end."""

    def __init__(self, script: Callable[[socket.socket], None]) -> None:
        self._script = script
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.url = f"mqtt://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
                with connection:
                    connection.settimeout(WAIT_S)
                    self._script(connection)
            except OSError:
                if self._listening.fileno() < 0:
                    return

    def __enter__(self) -> "Socket":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(WAIT_S)


def packet(connection: socket.socket) -> tuple[int, bytes]:
    """The next MQTT packet: its first byte and what follows the length."""

    def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = connection.recv(min(count - len(data), 2000))
            if not part:
                raise ConnectionError
            data += part
        return data

    kind, length, shift = exactly(1)[0], 0, 0
    while True:
        (byte,) = exactly(1)
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return kind, exactly(length)


def welcome(connection: socket.socket, granted: int = 1) -> None:
    assert packet(connection)[0] == 0x10
    connection.sendall(b"\x20\x02\x00\x00")
    kind, body = packet(connection)
    assert kind == 0x82
    connection.sendall(b"\x90\x03" + body[:2] + bytes([granted]))


def refuses_listening(connection: socket.socket) -> None:
    welcome(connection, granted=0x80)
    packet(connection)


def refuses_everything(connection: socket.socket) -> None:
    packet(connection)
    connection.sendall(b"\x20\x02\x00\x05")


def speaks_nonsense(connection: socket.socket) -> None:
    welcome(connection)
    connection.sendall(b"\x30\x03\x00\x01\xff")  # a topic that is no UTF-8
    packet(connection)


def announces_much(connection: socket.socket) -> None:
    welcome(connection)
    connection.sendall(b"\x30\x80\x80\x80\x7f" + bytes(1000))  # 252 MiB, of which nothing more comes
    packet(connection)


def test_a_broker_that_refuses_what_is_not_vital_is_used_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    def refuses_the_second(connection: socket.socket) -> None:
        assert packet(connection)[0] == 0x10
        connection.sendall(b"\x20\x02\x00\x00")
        _, body = packet(connection)
        connection.sendall(b"\x90\x04" + body[:2] + b"\x01\x80")
        packet(connection)

    with Socket(refuses_the_second) as broker:
        ear = Ear()
        words = LinkWords(NODE, (ACK, "down/desired"), STATE, b"lost")
        link = MqttLink(BrokerConfig(url=broker.url), words, ear, random.Random(1))
        link.start()
        try:
            assert ear.next()[0] == "up"
        finally:
            link.stop()
    assert "does not let this node listen to down/desired" in caplog.text


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (refuses_listening, "does not let this node listen to satomori/v1/29/kitayama-03/down/ack"),
        (refuses_everything, "the broker refused: Not authorized"),
        (speaks_nonsense, "can't decode byte 0xff"),
        (announces_much, "the broker announces a packet of"),
    ],
)
def test_a_broker_that_misbehaves_is_reported_and_tried_again(script: Callable[[socket.socket], None], reason: str) -> None:
    with Socket(script) as broker, linked(broker.url) as (_, ear):
        assert reason in ear.until("down")[1]
        ear.until("down")
        assert reason in ear.until("down")[1]


def test_nothing_ends_the_links_thread_but_stop(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Ear):
        def received(self, topic: str, payload: bytes) -> None:
            raise LookupError

    def says_something(connection: socket.socket) -> None:
        welcome(connection)
        connection.sendall(b"\x30\x03\x00\x01a")
        packet(connection)

    with Socket(says_something) as broker:
        ear = Broken()
        link = MqttLink(BrokerConfig(url=broker.url, backoff_cap_s=0.2), WORDS, ear, random.Random(1))
        link.start()
        try:
            assert ear.until("down")[1] == "the link failed: LookupError()"
            assert ear.until("up")
        finally:
            link.stop()
    assert "the link failed; connecting anew" in caplog.text


def test_it_ends_even_while_a_broker_says_nothing() -> None:
    connected, over = threading.Event(), threading.Event()

    def says_nothing(connection: socket.socket) -> None:
        connected.set()
        over.wait(WAIT_S)

    with Socket(says_nothing) as broker:
        with linked(broker.url) as (link, _):
            assert connected.wait(WAIT_S)
            link.stop()
            assert not link._thread.is_alive()
        over.set()


def test_only_the_links_own_thread_writes_to_the_socket() -> None:
    """paho would write from the thread that publishes too: two half packets would mix, and the broker see nonsense."""
    got: queue.Queue[bytes] = queue.Queue()

    def checks_every_packet(connection: socket.socket) -> None:
        welcome(connection)
        while True:
            kind, body = packet(connection)
            if kind == 0x32:
                (length,) = struct.unpack(">H", body[:2])
                mid, payload = body[2 + length : 4 + length], body[4 + length :]
                got.put(payload)
                connection.sendall(b"\x40\x02" + mid)

    with Socket(checks_every_packet) as broker, linked(broker.url) as (link, ear):
        ear.until("up")
        writers: set[str] = set()
        client: Any = link._client
        send = client._sock_send

        def noting(data: bytes) -> int:
            writers.add(threading.current_thread().name)
            return int(send(data))

        client._sock_send = noting
        sent = [bytes([number % 256]) * 60_000 for number in range(150)]
        for payload in sent:
            link.publish(LIVE, payload)
        assert [got.get(timeout=WAIT_S) for _ in sent] == sent
    assert writers == {"uplink"}


def test_the_kernel_holds_no_answer_back_until_what_went_before_is_acknowledged() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = make_client(BrokerConfig(url=f"mqtt://127.0.0.1:{port}"), NODE)
        client.connect("127.0.0.1", port)
        connected = client.socket()
        assert isinstance(connected, socket.socket)
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connected.close()
