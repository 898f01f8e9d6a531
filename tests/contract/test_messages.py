"""The messages: `Batch` and `check_batch` give one verdict, everything has one form on the wire, nothing hostile gets past."""

import json
import string
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from edge.contract.events import EVENTS, MAX_SEQ, AnyEvent, RecordClass
from edge.contract.messages import (
    MAX_BYTES,
    MAX_REASON,
    MAX_TIME_US,
    Ack,
    Applied,
    Batch,
    Birth,
    BornDevice,
    CheckedBatch,
    State,
    check_batch,
    encode,
    parse_event,
)
from edge.contract.metrics import METRICS, Kind

Json = Any

NAME = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=32)
HEX16 = st.integers(0, 2**64 - 1).map("{:016x}".format)
SHA256 = st.integers(0, 2**256 - 1).map("{:064x}".format)
SEQ = st.integers(1, MAX_SEQ)
DT = st.one_of(st.integers(-(10**7), 10**7), st.sampled_from([MAX_SEQ, -MAX_SEQ]))
TIME = st.integers(0, MAX_TIME_US)
COUNT = st.integers(0, MAX_SEQ)
REASON = st.text(min_size=1, max_size=MAX_REASON)

FIELDS: dict[str, dict[str, st.SearchStrategy[Json]]] = {
    "trap_sprung": {"folded": COUNT, "found": st.booleans()},
    "trap_reset": {"folded": COUNT, "found": st.booleans()},
    "trap_moved": {"how": st.sampled_from(["vibration", "tilt"]), "folded": COUNT},
    "trap_visited": {},
    "test_alarm": {"token": HEX16},
    "tamper_opened": {"folded": COUNT, "found": st.booleans()},
    "tamper_closed": {"folded": COUNT, "found": st.booleans()},
    "button_pressed": {"tag": st.just("bthome:ab"), "press": st.just("long_press"), "rssi": st.integers(-127, 20)},
    "clock_synced": {"boot": HEX16, "zero": COUNT, "stepped": st.integers(-MAX_SEQ, MAX_SEQ)},
    "tag_battery": {"tag": st.just("bthome:ab"), "voltage": st.none() | st.floats(0, 100), "level": st.integers(0, 100)},
    "media_captured": {
        "camera_offset_s": st.none() | st.integers(-MAX_SEQ, MAX_SEQ),
        "burst": st.none() | HEX16,
        "content": st.sampled_from(["unclassified", "animal", "person_or_vehicle", "unsure"]),
        "confidence": st.none() | st.floats(0, 1),
        "species": st.none() | NAME,
        "withheld": st.booleans(),
        "media": SHA256,
        "size": COUNT,
        "content_type": st.just("image/jpeg"),
        "camera_time": st.one_of(st.none(), st.just("2026-06-03T06:12:00")),
    },
    "tag_entered": {"tag": st.just("ibeacon:0:1:2"), "rssi": st.integers(-127, 20)},
    "tag_seen": {"tag": st.just("ibeacon:0:1:2"), "rssi": st.integers(-127, 20), "frames": COUNT},
    "tag_left": {"tag": st.just("ibeacon:0:1:2"), "rssi": st.integers(-127, 20)},
    "device_down": {"reason": st.text(min_size=1, max_size=300)},
    "device_up": {},
}


@st.composite
def events(draw: st.DrawFn) -> dict[str, Json]:
    kind = draw(st.sampled_from(sorted(EVENTS)))
    own = {name: draw(values) for name, values in FIELDS[kind].items()}
    rank = EVENTS[kind].rank.name.lower()
    return {"seq": draw(SEQ), "dt": draw(DT), "device": draw(NAME), "type": kind, "class": rank, **own}


@st.composite
def readings(draw: st.DrawFn) -> list[Json]:
    metric = draw(st.sampled_from(sorted(METRICS)))
    row = METRICS[metric]
    value = draw(st.one_of(st.floats(row.low, row.high), st.integers(int(row.low), int(row.high))))
    return [draw(SEQ), draw(DT), draw(NAME), metric, value]


@st.composite
def batches(draw: st.DrawFn) -> dict[str, Json]:
    message: dict[str, Json] = {
        "v": 1,
        "epoch": draw(HEX16),
        "boot": draw(HEX16),
        "clock": draw(st.sampled_from(["sync", "holdover", "unsync"])),
        "t0": draw(TIME),
        "mono0": draw(TIME),
        "sent": draw(TIME),
        "sent_mono": draw(st.none() | TIME),
        "readings": draw(st.lists(readings(), max_size=4)),
        "events": draw(st.lists(events(), max_size=4)),
        "lost": [
            [low, min(low + more, MAX_SEQ), why] for low, more, why in draw(st.lists(st.tuples(SEQ, COUNT, REASON), max_size=2))
        ],
    }
    for number, record in enumerate([*message["readings"], *message["events"]], draw(st.integers(1, MAX_SEQ - 8))):
        record["seq" if isinstance(record, dict) else 0] = number
    return message


HOSTILE = st.sampled_from(
    [
        2**53, 2**53 - 1, -(2**53), 2**64, -(2**63) - 1, 10**400, 1e308, 1e16, 0.5, 1.0, -0.0, 0, -1, True, False, None,
        "", "1", "a\n", "A", "a" * 33, "x" * 201, "\x00", "１", "sync ", [], {}, [[]], {"seq": 1}, [1], "trap_sprung", "rssi",
        json.loads("[" * 150 + "]" * 150),
    ]
).map(deepcopy)  # fmt: skip
JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=40), HOSTILE
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(st.text(max_size=12), inner, max_size=6)),
    max_leaves=15,
)


def places(value: Json) -> list[tuple[Json, Any]]:
    """Every (container, key) in a JSON value."""
    if isinstance(value, dict | list):
        found = [(value, key) for key in (value if isinstance(value, dict) else range(len(value)))]
        return found + [place for _, key in found for place in places(value[key])]
    return []


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Json]:
    """A batch that was good once, with one to three things replaced, removed, added or doubled."""
    message = draw(batches())
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(places(message)))
        match draw(st.sampled_from(["replace", "replace", "remove", "add", "double"])):
            case "replace":
                container[key] = draw(st.one_of(HOSTILE, JSON))
            case "remove":
                del container[key]
            case "add" if isinstance(container, dict):
                container[draw(st.sampled_from(["x", "class_", "seq", "v", "reason", "epoch", "bad\nname"]))] = draw(HOSTILE)
            case "add":
                container.append(draw(HOSTILE))
            case "double" if isinstance(container, list):
                container.append(container[key])
        if not message:
            break
    return message


def verdict(message: Json) -> str | None:
    """What `check_batch` has against a message, or None."""
    try:
        checked = check_batch(message)
    except ValueError as error:
        return str(error)
    return "; ".join(reason for _, reason, _ in checked.rejected) or None


def specification(check: Callable[[], object]) -> str | None:
    """What pydantic has against it, or None."""
    try:
        check()
    except ValidationError as error:
        return str(error)
    return None


def same_verdict(message: Json) -> None:
    flat, model = verdict(message), specification(lambda: Batch.model_validate(message))
    assert (flat is None) == (model is None), f"check_batch: {flat}\nBatch: {model}"
    if flat:
        assert flat.isprintable()


@given(batches())
def test_a_good_batch_is_good_to_both_and_nothing_of_it_changes(message: dict[str, Json]) -> None:
    assert verdict(message) is None
    batch = Batch.model_validate(message)
    assert orjson.loads(encode(batch)) == message
    checked = check_batch(message)
    assert checked.readings == message["readings"]
    assert checked.events == batch.events
    assert checked.lost == batch.lost


@settings(max_examples=250)
@given(damaged())
def test_both_judge_a_damaged_batch_alike(message: dict[str, Json]) -> None:
    same_verdict(message)


@given(JSON)
def test_both_judge_any_json_alike(message: Json) -> None:
    same_verdict(message)


@given(st.one_of(batches(), damaged(), JSON))
def test_both_judge_the_bytes_on_the_wire_alike(message: Json) -> None:
    text = json.dumps(message)
    try:
        decoded = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        flat: str | None = str(error)
    else:
        flat = verdict(decoded)
    model = specification(lambda: Batch.model_validate_json(text))
    assert (flat is None) == (model is None), f"check_batch: {flat}\nBatch: {model}"


@given(st.one_of(JSON, st.tuples(events(), HOSTILE).map(lambda pair: pair[0] | {next(reversed(pair[0])): pair[1]})))
def test_an_event_is_read_or_refused_on_one_readable_line(raw: Json) -> None:
    try:
        reason = ""
        assert isinstance(parse_event(raw), tuple(EVENTS.values()))
    except ValueError as error:
        reason = str(error)
    assert reason.isprintable()


GOOD: dict[str, Json] = {
    "v": 1, "epoch": "ab" * 8, "boot": "0" * 16, "clock": "sync", "t0": 1_780_434_720_000_000, "mono0": 90_000_000,
    "sent": 1_780_434_720_500_000, "sent_mono": 61_000_000,
    "readings": [[7, 0, "trap-11", "rssi", -70]], "lost": [[1, 2, "outbox full"]],
    "events": [{"seq": 8, "dt": 5, "device": "trap-11", "type": "trap_sprung", "class": "alarm", "folded": 0}],
}  # fmt: skip
READING = GOOD["readings"][0]
EVENT = GOOD["events"][0]


def test_the_example_is_good() -> None:
    assert check_batch(GOOD) == CheckedBatch(
        "ab" * 8,
        "0" * 16,
        "sync",
        GOOD["t0"],
        GOOD["mono0"],
        GOOD["sent"],
        GOOD["sent_mono"],
        [READING],
        [parse_event(EVENT)],
        [(1, 2, "outbox full")],
    )


def without(message: dict[str, Json], key: str) -> dict[str, Json]:
    return {name: value for name, value in message.items() if name != key}


WHOLE: list[tuple[Json, str]] = [
    (None, "no object"),
    ([GOOD], "no object"),
    (GOOD | {"v": True}, "version true"),
    (GOOD | {"v": 1.0}, "version 1.0"),
    (GOOD | {"v": 2}, "version 2"),
    (GOOD | {"extra": 1}, r"unknown fields \[\"extra\"\]"),
    (without(GOOD, "sent"), r"fields missing: \['sent'\]"),
    (GOOD | {"epoch": "AB" * 8}, "epoch is not 16 hex digits"),
    (GOOD | {"boot": "0" * 16 + "\n"}, "boot is not 16 hex digits"),
    (GOOD | {"clock": "Sync"}, "clock is not"),
    (GOOD | {"t0": -1}, "t0 is no time"),
    (GOOD | {"t0": 2**53}, "t0 is no time"),
    (GOOD | {"sent": 1.0}, "sent is no time"),
    (GOOD | {"mono0": True}, "mono0 is no time"),
    (GOOD | {"readings": {}}, "must be lists"),
    (GOOD | {"readings": [READING] * 2}, "seq stands twice"),
    (GOOD | {"events": [EVENT | {"seq": 7}]}, "seq stands twice"),
    (GOOD | {"readings": [[0, *READING[1:]]]}, "no usable seq"),
    (GOOD | {"readings": [["7", *READING[1:]]]}, "no usable seq"),
    (GOOD | {"readings": [READING[:4]]}, "a reading is not"),
    (GOOD | {"events": [without(EVENT, "seq")]}, "no usable seq"),
    (GOOD | {"events": [EVENT | {"seq": 2**53}]}, "no usable seq"),
    (GOOD | {"events": ["trap_sprung"]}, "no usable seq"),
    (GOOD | {"lost": [[2, 1, "x"]]}, "no usable range"),
    (GOOD | {"lost": [[1, 2, ""]]}, "no reason of 1 to 200"),
    (GOOD | {"lost": [[1, 2]]}, "a loss is not"),
    (GOOD | {"readings": [[100 + i, *READING[1:]] for i in range(500)]}, "501 records"),
    (GOOD | {"lost": [[1, 2, "x"]] * 501}, "501 records"),
]


@pytest.mark.parametrize(("message", "reason"), WHOLE, ids=range(len(WHOLE)))
def test_a_message_that_is_bad_as_a_whole_is_refused_with_the_reason(message: Json, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        check_batch(message)
    assert len(str(refused.value)) < 300
    same_verdict(message)


RECORDS: list[tuple[dict[str, Json], int, str]] = [
    ({"readings": [[7, 0, "Trap", "rssi", -70]]}, 7, "device is no name"),
    ({"readings": [[7, 0, "trap-11", "rsi", -70]]}, 7, 'metric is not in the table: "rsi"'),
    ({"readings": [[7, 0, "trap-11", "rssi", 51]]}, 7, "rssi 51 is outside -200..50 dB[mW]"),
    ({"readings": [[7, 0, "trap-11", "rssi", 10**400]]}, 7, "rssi 1000"),
    ({"readings": [[7, 0, "trap-11", "rssi", 10**5000]]}, 7, "rssi "),
    ({"readings": [[7, 0, "trap-11", "rssi", float("nan")]]}, 7, "rssi NaN is outside"),
    ({"readings": [[7, 0, "trap-11", "rssi", True]]}, 7, "rssi is no number"),
    ({"readings": [[7, 0, "trap-11", "rssi", "1"]]}, 7, "rssi is no number"),
    ({"readings": [[7, 0.0, "trap-11", "rssi", -70]]}, 7, "dt is no whole number"),
    ({"readings": [[7, 0, "trap-11", "rssi", json.loads("[" * 900 + "]" * 900)]]}, 7, "rssi is no number"),
    ({"events": [EVENT | {"type": "trap_sprang"}]}, 8, "event type is not in the table"),
    ({"events": [EVENT | {"class": "reading"}]}, 8, "trap_sprung: class"),
    ({"events": [without(EVENT, "class")]}, 8, "trap_sprung needs class, seq and dt"),
    ({"events": [EVENT | {"folded": True}]}, 8, "trap_sprung: folded"),
    ({"events": [EVENT | {"found": 1}]}, 8, "trap_sprung: found"),
    ({"events": [EVENT | {"bad\nname" * 90: 1}]}, 8, "trap_sprung: "),
]


@pytest.mark.parametrize(("bad", "seq", "reason"), RECORDS, ids=range(len(RECORDS)))
def test_a_bad_record_is_told_apart_from_the_good_ones_beside_it(bad: dict[str, Json], seq: int, reason: str) -> None:
    checked = check_batch(GOOD | bad)
    ((refused, why, record),) = checked.rejected
    assert (refused, why[: len(reason)], record) == (seq, reason, next(iter(bad.values()))[0])
    assert len(why) <= MAX_REASON
    assert why.isprintable()
    assert len(checked.readings) + len(checked.events) == 1
    same_verdict(GOOD | bad)
    Ack(epoch="ab" * 8, upto=0, rejected=[(refused, why)])  # and can be told to the edge


def test_500_records_and_no_more() -> None:
    rows = [[seq, *READING[1:]] for seq in range(100, 599)]
    assert verdict(GOOD | {"readings": rows}) is None
    same_verdict(GOOD | {"readings": rows})
    assert len(json.dumps(GOOD | {"readings": rows})) < MAX_BYTES


# The tables


@given(events())
def test_an_event_comes_back_as_it_went(raw: dict[str, Json]) -> None:
    event = parse_event(raw)
    assert orjson.loads(event.model_dump_json(by_alias=True)) == raw
    assert event.rank.name.lower() == raw["class"]


@pytest.mark.parametrize("model", EVENTS.values(), ids=EVENTS)
def test_every_event_says_its_type_and_a_class_that_a_full_outbox_understands(model: type[AnyEvent]) -> None:
    assert EVENTS[model.model_fields["type"].default] is model
    assert model.rank is RecordClass[model.model_fields["class_"].default.upper()]
    assert model.rank < RecordClass.READING
    assert model.__doc__


@pytest.mark.parametrize("metric", METRICS)
def test_both_ends_of_a_metric_are_possible_and_what_lies_beyond_is_refused(metric: str) -> None:
    row = METRICS[metric]
    assert row.kind in Kind
    assert row.unit
    assert row.meaning.endswith(".")
    for value, fine in [(row.low, True), (row.high, True), (row.low - 1, False), (row.high * 2 + 2, False)]:
        message = GOOD | {"readings": [[7, 0, "trap-11", metric, value]]}
        assert (verdict(message) is None) is fine
        same_verdict(message)


# The other messages

BORN = BornDevice(device="trap-11", kind="reed-trap", metrics=["heartbeat"])
OTHERS: list[BaseModel] = [
    Birth(epoch="ab" * 8, session="cd" * 8, boot="0" * 16, agent="x", sent=5, first=1, oldest=2, next=2, devices=[BORN]),
    Birth(
        epoch="ab" * 8, session="cd" * 8, boot="0" * 16, agent="x", sent=5, first=1, oldest=1, next=1, devices=[],
        config=Applied(revision=3, sha256="0" * 64),
    ),
    State(session="cd" * 8, online=True),
    State(session="cd" * 8, online=False, reason="lost"),
    Ack(epoch="ab" * 8, upto=0),
    Ack(epoch="ab" * 8, upto=5, ranges=[(7, 9)], missing=[(6, 6)], rejected=[(3, "no")], wait_s=5),
]  # fmt: skip


@pytest.mark.parametrize("message", OTHERS, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_went(message: BaseModel) -> None:
    assert type(message).model_validate_json(encode(message)) == message
    assert type(message).model_validate(orjson.loads(encode(message))) == message


def changed(message: BaseModel, **fields: Json) -> bytes:
    return orjson.dumps(orjson.loads(encode(message)) | fields)


BAD: list[tuple[type[BaseModel], bytes]] = [
    (Birth, changed(OTHERS[0], oldest=3)),
    (Birth, changed(OTHERS[0], first=3)),
    (Birth, changed(OTHERS[0], v=True)),
    (Birth, changed(OTHERS[0], next=0)),
    (Birth, changed(OTHERS[0], extra=1)),
    (State, changed(OTHERS[2], online=1)),
    (State, changed(OTHERS[2], reason="gone")),
    (State, changed(OTHERS[2], v=1.0)),
    (Ack, changed(OTHERS[4], upto=-1)),
    (Ack, changed(OTHERS[4], upto="5")),
    (Ack, changed(OTHERS[4], ranges=[[9, 7]])),
    (Ack, changed(OTHERS[4], missing=[[9, 7]])),
    (Ack, changed(OTHERS[4], ranges=[[7]])),
    (Ack, changed(OTHERS[4], rejected=[[1, ""]])),
    (Ack, changed(OTHERS[4], wait_s=3601)),
]


@pytest.mark.parametrize(("model", "payload"), BAD, ids=range(len(BAD)))
def test_a_message_that_makes_no_sense_is_refused(model: type[BaseModel], payload: bytes) -> None:
    with pytest.raises(ValidationError):
        model.model_validate_json(payload)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(payload: bytes) -> None:
    for model in (Batch, Birth, State, Ack):
        with pytest.raises(ValidationError):
            model.model_validate_json(payload)
