"""A stolen or hostile node with a good certificate: contained to itself, visible, never a crash, never another one's delay."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from edge.contract.events import MAX_SEQ
from edge.contract.messages import Ack
from edge.contract.ranges import Ranges
from edge.contract.topics import Channel, Topic, topic_for
from gateway import intake, pipeline
from gateway.ingest import GatewayBrokerConfig, Ingest
from gateway.nodes.conduct import KINDS, MOST, WITHIN_US, Conduct
from gateway.pipeline import Message
from gateway.shares import ShareConfig, Shares
from gateway.state import tables
from simulators.broker import Broker, BrokerMissingError, mosquitto, nats
from tests.gateway.town import MINUTE_US, NODE, NOW_US, SECOND_US, YEAR_US, Town, batch, birth, event, reading

HOSTILE, HONEST = "stolen", "minamisawa"
DAY_US = 86_400 * SECOND_US
LIVE = topic_for(Topic(HOSTILE, Channel.LIVE))


@pytest.fixture
def noted(town: Town) -> list[tuple[str, str]]:
    """What the pipeline notes of nodes, as (node, what)."""
    notes: list[tuple[str, str]] = []
    town.pipeline.contain(lambda node, what, _now_us, _times: notes.append((node, what)), lambda *_: None)
    return notes


def raw(payload: bytes, channel: Channel = Channel.LIVE) -> Message:
    return Message(topic_for(Topic(HOSTILE, channel)), payload)


def with_value(text: str) -> bytes:
    return batch([reading(1)], node=HOSTILE).payload.replace(b"1.0]", text.encode() + b"]")


POISON = {
    "deep": raw(b"[" * 60_000 + b"]" * 5_000),
    "deep objects": raw(b'{"v":' * 10_000 + b"1" + b"}" * 10_000),
    "deep birth": raw(b'{"devices":' + b"[" * 30_000 + b"]" * 30_000 + b"}", Channel.BIRTH),
    "NaN": raw(with_value("NaN")),
    "infinity": raw(with_value("1e999")),
    "a huge number": raw(with_value("9" * 5000)),
    "no JSON": raw(b"\xff\x00" * 1000),
    "nothing": raw(b""),
    "too much": raw(bytes(200_000)),
    "seq near 2**64": batch([reading(2**64 - 1)], node=HOSTILE),
    "seq above 2**64": batch([reading(2**64 + 1)], node=HOSTILE),
    "the last seq": batch(events=[event(MAX_SEQ)], node=HOSTILE),
    "year 9999": batch([reading(2)], node=HOSTILE, t0=253_402_300_799_000_000),
    "year 1": batch([reading(3)], node=HOSTILE, t0=0, sent=0),
    "a century of dt": batch([reading(4, 100 * YEAR_US)], [event(5, -100 * YEAR_US)], node=HOSTILE),
    "all is lost": batch(lost=[[1, MAX_SEQ, "x"]], node=HOSTILE),
    "another one's device": batch(events=[event(6, device="trap-11")], node=HOSTILE),
    "a NUL in a device": raw(batch(events=[event(8)], node=HOSTILE).payload.replace(b"trap-11", b"\\u0000")),
    "a NUL in a loss": batch(lost=[[8, 9, "x\0"]], node=HOSTILE),
    "a NUL in an agent": raw(birth(node=HOSTILE).payload.replace(b'"test"', b'"\\u0000"'), Channel.BIRTH),
    "a NUL in a type": raw(batch(events=[event(8)], node=HOSTILE).payload.replace(b"trap_sprung", b"trap\\u0000sprung")),
    "a surrogate": raw(batch(events=[event(7)], node=HOSTILE).payload.replace(b"trap-11", b"\\ud800")),
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_what_a_hostile_node_says_stops_nothing_and_touches_nobody_else(town: Town, poison: Message) -> None:
    """In one group with an honest node's alarm, before and after it."""
    own = batch([reading(1)], [event(2)], node=HONEST)
    acks = town.process(poison, own, poison)
    honest = [ack for ack in acks if ack.upto == 2]
    assert len(honest) == 1
    assert [(row["node"], row["seq"]) for row in town.rows(tables.events) if row["node"] == HONEST] == [(HONEST, 2)]
    assert all(row["node"] in (HOSTILE, HONEST) for row in town.rows(tables.events)), "its records are its own"
    assert {row["node"] for row in town.rows(tables.quarantine)} <= {HOSTILE}
    now_us = town.now_us
    assert all(row["time_us"] <= now_us + 5 * MINUTE_US for row in town.rows(tables.events))
    town.tick()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=8,
)
FIELDS = ("v", "epoch", "boot", "clock", "t0", "mono0", "sent", "sent_mono", "readings", "events", "lost")


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3), st.sampled_from([Channel.LIVE, Channel.BIRTH, Channel.STATE]))
@settings(max_examples=20, deadline=None)
def test_whatever_a_batch_holds_the_others_are_processed(town_of_module: Town, odd: dict[str, Any], channel: Channel) -> None:
    town = town_of_module
    body = {**json.loads(batch([reading(1)], [event(2)], node=HOSTILE).payload), **odd}
    town.seq = getattr(town, "seq", 0) + 1  # type: ignore[attr-defined]
    own = batch(events=[event(town.seq)], node=HONEST)  # type: ignore[attr-defined]
    acks = town.process(raw(json.dumps(body).encode(), channel), own)
    assert any(ack.upto == town.seq for ack in acks)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def town_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with Town(tmp_path_factory.mktemp("town")) as town:
        yield town


def test_a_lying_clock_is_the_liars_alone(town: Town) -> None:
    town.process(batch([reading(1)], [event(1 + 1)], node=HOSTILE, t0=NOW_US + 10 * YEAR_US, sent=NOW_US + 10 * YEAR_US))
    town.process(batch([reading(1)], [event(2)], node=HONEST))
    times = {row["node"]: row["time_us"] for row in town.rows(tables.events)}
    assert times[HONEST] == NOW_US
    assert times[HOSTILE] <= NOW_US


def test_old_batches_played_back_change_nothing(town: Town) -> None:
    message = batch([reading(1)], [event(2)], node=HOSTILE)
    town.process(message)
    before = (town.rows(tables.events), town.rows(tables.alerts), len(town.store.written))
    for _ in range(50):
        [ack] = town.process(message)
        assert ack.upto == 2
    assert (town.rows(tables.events), town.rows(tables.alerts), len(town.store.written)) == before


def test_reused_numbers_are_noted(town: Town, noted: list[tuple[str, str]]) -> None:
    town.process(batch(events=[event(1)], node=HOSTILE))
    assert noted == []
    town.process(batch(events=[event(1, device="trap-12")], node=HOSTILE), batch(events=[event(1)], node=HONEST))
    assert [note for note in noted if note[1] == "seq_reused"] == [(HOSTILE, "seq_reused")]


def test_ten_thousand_device_names_are_a_thousand(town: Town, noted: list[tuple[str, str]]) -> None:
    for start in range(0, 10_000, 500):
        names = [f"d-{number}" for number in range(start, start + 500)]
        town.process(
            birth(node=HOSTILE, devices=names),
            batch([reading(start + n + 1, n * 1000, device=name) for n, name in enumerate(names)], node=HOSTILE),
        )
    assert sum(row["node"] == HOSTILE for row in town.rows(tables.devices)) == intake.MAX_DEVICES
    town.tick()
    assert len({row["device"] for row in town.rows(tables.latest)}) == intake.MAX_DEVICES
    assert (HOSTILE, "crowded") in noted
    town.process(birth(node=HONEST, devices=["trap-1"]))
    assert (HONEST, "trap-1") in {(row["node"], row["device"]) for row in town.rows(tables.devices)}


def test_a_node_has_so_many_series(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_SERIES", 10)
    [ack] = town.process(batch([reading(seq, device=f"d-{seq}") for seq in range(1, 21)], node=HOSTILE))
    assert (ack.upto, len(ack.rejected)) == (20, 10)


@pytest.mark.parametrize("what", ["seqs", "lost"])
def test_numbers_scattered_on_purpose_end_in_a_refusal_and_not_in_a_row_without_end(
    town: Town, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(intake, "MAX_RANGES", 1000)
    for start in range(1, 20_000, 1000):
        seqs = range(start, start + 1000, 2)
        scattered = [reading(seq, seq) for seq in seqs] if what == "seqs" else [reading(start + 999, start)]
        town.process(batch(scattered, lost=[[seq, seq, "x"] for seq in seqs] if what == "lost" else [], node=HOSTILE))
    [row] = [row for row in town.rows(tables.ranges) if row["node"] == HOSTILE]
    assert len(Ranges.parse(row["body"])) <= 1500
    [ack] = town.process(batch([reading(2)], node=HOSTILE))
    assert ack.upto >= 2, "what fills a gap is taken"


def test_epochs_and_boots_without_end_are_left_unread_and_come_in_later(
    town: Town, monkeypatch: pytest.MonkeyPatch, noted: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(intake, "NEW_BOOTS", 20)
    monkeypatch.setattr(intake, "NEW_EPOCHS", 5)
    acks = town.process(*(batch([reading(1)], node=HOSTILE, epoch=f"{n:016x}") for n in range(100)))
    assert len(acks) == 5
    assert set(noted) == {(HOSTILE, "crowded")}
    town.process(
        *(batch([reading(2 + n, (n + 1) * 1000)], node=HOSTILE, epoch=f"{0:016x}", boot=f"{n:016x}") for n in range(100))
    )
    assert sum(row["node"] == HOSTILE for row in town.rows(tables.boots)) <= 20
    assert town.rows(tables.quarantine) == [], "unread is not refused: it may come again"
    town.later(intake.EPOCH_EVERY_US)
    [ack] = town.process(batch([reading(1)], node=HOSTILE, epoch=f"{99:016x}"))
    assert ack.upto == 1
    [ack] = town.process(batch([reading(1)], node=HONEST))
    assert ack.upto == 1


def test_a_flood_of_refusals_is_counted_and_does_not_push_out_what_is_known_of_others(
    town: Town, monkeypatch: pytest.MonkeyPatch, noted: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(pipeline, "NODE_ROWS", 300)
    town.process(batch([reading(1, metric="nonsense")], node=HONEST))
    for start in range(0, 5000, 500):
        acks = town.process(batch([reading(start + n + 1, metric="nonsense") for n in range(500)], node=HOSTILE))
        assert sum(len(ack.rejected) for ack in acks) == 500, "the node is told of each"
    rows = [row["node"] for row in town.rows(tables.quarantine)]
    assert (rows.count(HONEST), rows.count(HOSTILE)) == (1, 300)
    assert town.telemetry.quarantined.labels("record")._value.get() == 5001
    assert noted.count((HOSTILE, "refused")) == 10


def test_losses_of_one_node_are_the_newest(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "NODE_ROWS", 100)
    town.process(batch(lost=[[1, 1, "honest"]], events=[event(2)], node=HONEST))
    for start in range(1, 1000, 200):
        lost = [[seq, seq, "x"] for seq in range(start, start + 198, 2)]
        town.process(batch([reading(start + 199, start)], lost=lost, node=HOSTILE))
    reasons = [row["reason"] for row in town.rows(tables.losses)]
    assert (reasons.count("honest"), reasons.count("x")) == (1, 100)


# ---- it becomes visible -------------------------------------------------------------------------------


class Said:
    """The conditions that were said, in place of the gateway's own rule."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def __call__(self, part: str, level: str, reason: str, facts: Any, opening: str) -> None:
        assert "moment" in facts or level == "ok"
        self.all.append((part, level))


def test_conduct_is_said_once_and_once_more_when_it_is_over(town: Town) -> None:
    said = Said()
    conduct = Conduct(town.state, said)
    for second in range(0, 1200, 5):
        conduct.note(HOSTILE, "over_share", NOW_US + second * SECOND_US)
        conduct.run(NOW_US + second * SECOND_US)
    assert said.all == [(f"{HOSTILE}:over_share", "firing")]
    conduct.run(NOW_US + DAY_US)
    conduct.run(NOW_US + DAY_US + SECOND_US)
    assert said.all == [(f"{HOSTILE}:over_share", "firing"), (f"{HOSTILE}:over_share", "ok")]


def test_a_few_births_are_a_bad_link_and_many_are_somebody_in_its_name(town: Town) -> None:
    said = Said()
    conduct = Conduct(town.state, said)
    for day in range(30):
        for _ in range(KINDS["reborn"].often - 1):
            conduct.note(NODE, "reborn", NOW_US + day * DAY_US)
        conduct.run(NOW_US + day * DAY_US)
    assert said.all == []
    for _ in range(KINDS["reborn"].often):
        conduct.note(NODE, "reborn", NOW_US + 40 * DAY_US)
    conduct.run(NOW_US + 40 * DAY_US)
    assert said.all == [(f"{NODE}:reborn", "firing")]


def test_names_without_end_make_no_alerts_without_end(town: Town) -> None:
    said = Said()
    conduct = Conduct(town.state, said)
    for number in range(2000):
        conduct.note(f"n-{number}", "seq_reused", NOW_US)
    conduct.run(NOW_US)
    assert len(said.all) == MOST


def test_what_was_said_before_a_restart_is_taken_back_after_it(town: Town) -> None:

    said = Said()
    with town.state.write() as connection:
        connection.execute(
            tables.alerts.insert().values(
                id="a", rule="gateway", kind="gateway", severity="warning", node="gateway", device=f"{HOSTILE}:seq_reused",
                opening="1", state="firing", since_us=NOW_US, late=False, summary="x", version=1,
            )
        )  # fmt: skip
    conduct = Conduct(town.state, said)
    conduct.run(NOW_US)
    assert said.all == []
    conduct.run(NOW_US + KINDS["seq_reused"].quiet_us)
    assert said.all == [(f"{HOSTILE}:seq_reused", "ok")]
    assert KINDS["seq_reused"].quiet_us > WITHIN_US


# ---- through a real broker ----------------------------------------------------------------------------


@pytest.fixture(params=[nats, pytest.param(mosquitto, marks=pytest.mark.services)], ids=["nats", "mosquitto"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    try:
        made = request.param(tmp_path / "broker")
    except BrokerMissingError as error:
        pytest.skip(str(error))
    with made:
        yield made


@contextmanager
def at_work(town: Town, broker: Broker, shares: Shares) -> Iterator[Ingest]:
    config = GatewayBrokerConfig(url=broker.url, backoff_cap_s=0.2)
    ingest = Ingest(config, town.pipeline, town.telemetry, random.Random(1), lambda: time.time_ns() // 1000, None, None, shares)
    town.pipeline.contain(lambda *_: None, shares.charge)
    thread = threading.Thread(target=ingest.run, daemon=True)
    thread.start()
    try:
        yield ingest
    finally:
        ingest.stop()
        thread.join(30)
        assert not thread.is_alive()


class Speaker:
    """A node's connection; hears its acks."""

    def __init__(self, broker: Broker, node: str, on_ack: Callable[[Ack], None] = lambda _: None) -> None:
        self.client = Client(CallbackAPIVersion.VERSION2, node, clean_session=True, protocol=MQTTv311)
        self.client.max_inflight_messages_set(0)
        ready = threading.Event()
        self.client.on_connect = lambda client, *_: client.subscribe(topic_for(Topic(node, Channel.ACK)), 1)
        self.client.on_subscribe = lambda *_: ready.set()

        def heard(_client: Client, _data: object, message: MQTTMessage) -> None:
            on_ack(Ack.model_validate_json(message.payload))

        self.client.on_message = heard
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        assert ready.wait(20)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def test_beside_a_flood_every_record_of_an_honest_node_is_acknowledged_and_the_flooder_gets_its_share(
    town: Town, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread: list[str] = []
    shares = Shares(ShareConfig(burst=20_000, readings_per_s=1000), lambda node, *_: unread.append(node))
    done, freed = threading.Event(), Ranges()

    def acked(ack: Ack) -> None:
        if ack.upto:
            freed.add(1, ack.upto)
        if ack.upto == 30:
            done.set()

    hears = threading.Event()
    monkeypatch.setattr(town.telemetry.broker_up, "set", lambda is_up: hears.set() if is_up else None)
    with at_work(town, broker, shares):
        assert hears.wait(20)
        flooder, honest = Speaker(broker, HOSTILE), Speaker(broker, HONEST, acked)
        now_us = time.time_ns() // 1000
        for number in range(600):
            first = number * 500
            rows = [reading(first + n + 1, -first - n, device=f"d-{n % 10}") for n in range(500)]
            flooder.client.publish(LIVE, batch(rows, node=HOSTILE, t0=now_us, sent=now_us).payload, 1)
            if number % 20 == 0:
                seq = number // 20 + 1
                own = batch(events=[event(seq, seq * 1000)], node=HONEST, t0=now_us, sent=now_us)
                honest.client.publish(own.topic, own.payload, 1)
        assert done.wait(30), f"the honest node's records were acknowledged up to {freed.upto} of 30"
        flooder.close()
        honest.close()
    assert set(unread) <= {HOSTILE}
    with town.state.read() as connection:
        assert len(connection.execute(tables.events.select().where(tables.events.c.node == HONEST)).all()) == 30
