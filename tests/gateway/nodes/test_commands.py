"""An order goes down until it is answered or runs out, and what the node says first is what became of it."""

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from edge.contract.messages import encode
from edge.contract.remote import Command, Result
from edge.contract.topics import Channel, Topic, parse, topic_for
from edge.signature import believed
from gateway.ingest import GatewayBrokerConfig, Ingest
from gateway.nodes.commands import MAX_WAITING, NO_ANSWER, NotOrdered, TooManyWaiting, order, round_trip_ms
from gateway.nodes.desired import ask
from gateway.nodes.known import UnknownNode
from gateway.nodes.outgoing import Down, Outgoing
from gateway.pipeline import Message
from gateway.state import tables
from gateway.telemetry import Telemetry
from simulators.broker import nats
from tests.gateway.town import MINUTE_US, NODE, SECOND_US, SIGNER, Town, birth, locked

WAIT_S = 30


@pytest.fixture
def known(town: Town) -> Town:
    town.process(birth())
    town.goes_down(anew=True)
    return town


def ordered(town: Town, name: str = "identify", device: str | None = None, **more: Any) -> str:
    return order(town.state, SIGNER, more.pop("node", NODE), name, device, town.now_us, "tanaka", **more)


def result(id_: str, state: Any = "done", *, node: str = NODE, **more: Any) -> Message:
    return Message(topic_for(Topic(node, Channel.RESULT, id_)), encode(Result(state=state, **more)))


def became(town: Town) -> list[tuple[str, str | None]]:
    return [(row["state"], row["reason"]) for row in town.rows(tables.commands)]


def ids(downs: list[Down]) -> list[str | None]:
    return [parse(down.topic).id for down in downs]


def test_an_order_goes_down_signed_not_kept_by_the_broker_and_with_its_end(known: Town) -> None:
    id_ = ordered(known, "take_picture", "cam-02", ttl_s=60)

    (down,) = known.goes_down()

    assert (down.topic, down.retain) == (topic_for(Topic(NODE, Channel.COMMAND, id_)), False)
    command, _ = believed(down.payload, [SIGNER.public], Command, NODE)
    assert command == Command(
        node=NODE, id=id_, name="take_picture", device="cam-02", issued=known.now_us, expires=known.now_us + 60 * SECOND_US
    )


def test_it_is_said_again_ever_more_seldom_until_it_is_answered(known: Town) -> None:
    id_ = ordered(known)
    said_at_s = []
    for second in range(250):
        if known.goes_down():
            said_at_s.append(second)
        known.later(SECOND_US)
    assert said_at_s == [0, 30, 90, 210]

    known.process(result(id_))

    assert became(known) == [("done", None)]
    assert known.goes_down(anew=True) == []


def test_it_is_said_at_once_when_its_node_comes_back_and_on_another_connection(known: Town) -> None:
    id_ = ordered(known)
    known.goes_down()
    known.later(SECOND_US)
    known.process(birth(retained=True))
    assert known.goes_down() == [], "the broker's memory is nobody who came back"
    known.process(birth(node="minami-01"))
    assert known.goes_down() == [], "nor is another node"
    known.process(birth())
    assert ids(known.goes_down()) == [id_]
    assert ids(known.goes_down(anew=True)) == [id_]
    known.restart()
    assert ids(known.goes_down(anew=True)) == [id_]


def test_what_is_not_answered_runs_out_and_a_late_answer_still_counts(known: Town) -> None:
    id_ = ordered(known)
    known.later(5 * MINUTE_US)
    assert known.goes_down(anew=True) == []
    assert became(known) == [("expired", NO_ANSWER)]

    known.process(result(id_, "refused", reason="it came too late"))

    assert became(known) == [("refused", "it came too late")]


def test_the_first_answer_counts(known: Town) -> None:
    id_ = ordered(known, "take_picture", "cam-02")
    known.process(result(id_, media="a" * 64), result(id_, "failed", reason="again"))
    known.process(result(id_, "refused", reason="once more"))
    (row,) = known.rows(tables.commands)
    assert (row["state"], row["media"], row["answered_us"]) == ("done", "a" * 64, known.now_us)
    assert known.reasons() == []


def test_who_answers_what_nobody_ordered_is_refused(known: Town) -> None:
    id_ = ordered(known)
    known.process(birth(node="minami-01"), result("never-ordered"), result(id_, node="minami-01"))
    assert became(known) == [("waiting", None)]
    assert known.reasons() == [
        f"answers command never-ordered, which this gateway never gave to {NODE}",
        f"answers command {id_}, which this gateway never gave to minami-01",
    ]


def test_a_ping_tells_how_the_node_hears_its_network_and_the_time_it_took(known: Town) -> None:
    id_ = ordered(known, "ping")
    known.later(43_200)
    known.process(result(id_, rssi_dbm=-97))
    (row,) = known.rows(tables.commands)
    assert (row["state"], row["rssi_dbm"], round_trip_ms(row["issued_us"], row["answered_us"])) == ("done", -97, 43)


def test_a_trip_that_did_not_end_or_ended_before_it_began_took_no_time_that_could_be_told() -> None:
    assert round_trip_ms(2_000, None) is None
    assert round_trip_ms(2_000, 1_000) is None, "somebody set the clock"


@pytest.mark.parametrize(
    ("name", "device", "ttl_s", "wrong"),
    [
        ("explode", None, 300, "name: 'explode' is no command"),
        ("take_picture", None, 300, "device: take_picture is for one device"),
        ("identify", "cam-02", 300, "device: identify is for the node as a whole"),
        ("restart_device", "Cam 2", 300, "device: 'Cam 2' is no name"),
        ("test_alarm", None, 300, "device: test_alarm is for one device"),
        ("ping", "cam-02", 300, "device: ping is for the node as a whole"),
        ("identify", None, 5, "ttl_s"),
        ("identify", None, 90_000, "ttl_s"),
    ],
)
def test_what_cannot_be_ordered_is_refused(known: Town, name: str, device: str | None, ttl_s: int, wrong: str) -> None:
    with pytest.raises(NotOrdered, match=wrong):
        ordered(known, name, device, ttl_s=ttl_s)
    assert known.rows(tables.commands) == []


def test_a_misspelt_node_is_given_nothing(known: Town) -> None:
    with pytest.raises(UnknownNode, match="kitayama-33"):
        ordered(known, node="kitayama-33")


def test_who_presses_again_and_again_does_not_fill_the_nodes_way_back(known: Town) -> None:
    for _ in range(MAX_WAITING):
        ordered(known)
    with pytest.raises(TooManyWaiting, match=f"has not answered {MAX_WAITING} commands"):
        ordered(known)
    known.later(5 * MINUTE_US)
    ordered(known)


@given(st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_no_result_breaks_the_pipeline(known: Town, payload: bytes) -> None:
    id_ = ordered(known)
    try:
        known.process(Message(topic_for(Topic(NODE, Channel.RESULT, id_)), payload))
    finally:
        known.process(result(id_))
    assert not any("broke the pipeline" in reason for reason in known.reasons())


# --- Through a real broker --------------------------------------------------------------------------


class Hearing:
    """A node's client: notes what comes down, and lets a test wait for it."""

    def __init__(self, url: str) -> None:
        self.heard: list[MQTTMessage] = []
        self._news = threading.Condition()
        self._ready = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, NODE, clean_session=False, protocol=MQTTv311)
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *_: client.subscribe(topic_for(Topic(NODE, Channel.DESIRED))[:-7] + "#", 1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.connect("127.0.0.1", int(url.rpartition(":")[2]))

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        with self._news:
            self.heard.append(message)
            self._news.notify_all()

    def __enter__(self) -> "Hearing":
        self._client.loop_start()
        assert self._ready.wait(WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def wait_for(self, condition: Callable[[list[MQTTMessage]], object]) -> None:
        with self._news:
            assert self._news.wait_for(lambda: condition(self.heard), WAIT_S), [message.topic for message in self.heard]


class Locked(Outgoing):
    """The real one. Its database can't be read, as often as the test says; it notes on how many connections it was asked."""

    fails = 0
    connections = 0

    def messages(self, now_us: int, *, anew: bool) -> list[Down]:
        if self.fails:
            self.fails -= 1
            raise locked()
        self.connections += anew
        return super().messages(now_us, anew=anew)


def test_over_a_real_broker_an_order_arrives_when_somebody_rings_and_a_document_waits_there(
    known: Town, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outgoing = Locked(known.state, SIGNER)
    outgoing.fails = 2
    with nats(tmp_path / "broker") as broker:
        config = GatewayBrokerConfig(url=broker.url, backoff_cap_s=0.2)
        ingest = Ingest(config, known.pipeline, Telemetry(), random.Random(1), lambda: known.now_us, None, outgoing)
        thread = threading.Thread(target=ingest.run, daemon=True)
        thread.start()
        try:
            with Hearing(broker.url) as node:
                id_ = ordered(known)
                ingest.ring()
                node.wait_for(lambda heard: [parse(one.topic).id for one in heard] == [id_])
                ask(known.state, SIGNER, NODE, {"trap-11": {"type": "reed_trap", "pin": 17}}, None, known.now_us, "tanaka")
                ingest.ring()
                node.wait_for(lambda heard: len(heard) == 2)
                assert outgoing.connections == 1
                # Another client of the same name: the broker hangs up on ours, which comes back and says again what is open.
                other = Client(CallbackAPIVersion.VERSION2, config.client_id, clean_session=False, protocol=MQTTv311)
                other.connect("127.0.0.1", int(broker.url.rpartition(":")[2]))
                other.loop()
                other.disconnect()
                node.wait_for(lambda heard: len(heard) >= 4)
                assert outgoing.connections > 1
            with Hearing(broker.url) as node:
                node.wait_for(lambda heard: heard)
                assert [(parse(one.topic).channel, one.retain) for one in node.heard] == [(Channel.DESIRED, True)]
        finally:
            ingest.stop()
            thread.join(WAIT_S)
    assert not thread.is_alive()
    told = [record.levelname for record in caplog.records if "told" in record.getMessage()]
    assert told == ["ERROR", "WARNING"], "once when it can't, once when it can again"


def test_over_a_real_broker_whoever_rings_waits_for_no_chore(
    known: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ingest.TICK_S", 600.0)
    with nats(tmp_path / "broker") as broker:
        config = GatewayBrokerConfig(url=broker.url)
        outgoing = Outgoing(known.state, SIGNER)
        ingest = Ingest(config, known.pipeline, Telemetry(), random.Random(1), lambda: known.now_us, None, outgoing)
        thread = threading.Thread(target=ingest.run, daemon=True)
        thread.start()
        try:
            with Hearing(broker.url) as node:
                for _ in range(3):
                    id_ = ordered(known, "ping")
                    ingest.ring()
                    node.wait_for(lambda heard: heard and parse(heard[-1].topic).id == id_)  # noqa: B023 - waits at once
        finally:
            ingest.stop()
            ingest.ring()
            thread.join(WAIT_S)
    assert not thread.is_alive()
