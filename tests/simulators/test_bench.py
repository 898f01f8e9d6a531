"""The benchmark measures what it says, and says so when something got lost on the way."""

import io
import json
import time
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from edge.contract.messages import check_batch
from simulators.bench import __main__ as bench
from simulators.bench import drain, store
from simulators.bench.bare import Sink
from simulators.bench.figures import Figure, print_table, write_json
from simulators.broker import nats

FAST = Figure("pipeline", "msg/s", [100.0, 80.0, 90.0], "bare", [120.0, 100.0, 80.0], target=0.8)


def test_a_ratio_is_of_the_medians_and_more_is_better_for_us() -> None:
    assert FAST.value == 90
    assert FAST.ratio == pytest.approx(0.9)
    assert not FAST.missed
    cost = Figure("CPU", "µs", [50.0], "bare", [40.0], target=0.9, less_is_better=True)
    assert cost.ratio == pytest.approx(0.8)
    assert cost.missed
    assert Figure("latency", "ms", [3.0]).ratio is None


def test_figures_are_written_for_programs_and_shown_to_people(tmp_path: Path) -> None:
    write_json([FAST, Figure("latency", "ms", [3.0])], tmp_path / "build" / "bench.json")
    assert json.loads((tmp_path / "build" / "bench.json").read_text(encoding="utf-8")) == [
        {"name": "pipeline", "value": 90, "unit": "msg/s", "spread": [80, 100], "peer": "bare", "peer_value": 100,
         "peer_spread": [80, 120], "ratio": 0.9, "target": 0.8, "met": True, "lacking": None},
        {"name": "latency", "value": 3, "unit": "ms", "spread": [3, 3], "peer": None, "peer_value": None,
         "peer_spread": None, "ratio": None, "target": None, "met": None, "lacking": None},
    ]  # fmt: skip
    out = io.StringIO()
    print_table([FAST], "on this machine", Console(file=out, width=120))
    for part in ("pipeline", "90 msg/s", "(80..100)", "bare", "0.90", ">= 0.8", "met", "on this machine"):
        assert part in out.getvalue()


def test_the_table_stands_in_80_columns_and_breaks_no_number() -> None:
    wide = Figure(
        "readings at 1,234.5 records/s while 36000 records drain", "readings/s", [121e3, 122e3],
        "raw SQLite, same rows and pragmas", [130e3, 140e3], target=0.8,
    )  # fmt: skip
    out = io.StringIO()
    print_table([FAST, wide], "on this machine", Console(file=out, width=80))
    assert max(map(cell_len, out.getvalue().splitlines())) <= 80
    for part in ("121,500 readings/s", "(121,000..122,000)", "135,000 readings/s", "0.90", ">= 0.8"):
        assert part in out.getvalue()


def test_both_consumers_drain_the_same_messages_and_both_have_all_of_them(tmp_path: Path) -> None:
    speed, cost = drain.measure(nats, tmp_path, 600, 1)  # raises when a database lacks a record
    assert (speed.value or 0) > 0
    assert speed.peer_values[0] > 0
    assert speed.target == 0.8
    assert cost.less_is_better


def test_a_consumer_that_lost_something_is_no_measurement() -> None:
    prepared = drain.Prepared([("t", b"")] * 5, readings=40, events=1)
    drain.check("ours", {"messages": 5, "readings": 40, "events": 1, "quarantine": 0}, prepared)
    for wrong in ({"readings": 39}, {"events": 2}, {"quarantine": 1}, {"messages": 4}):
        with pytest.raises(RuntimeError, match="ours"):
            drain.check("ours", {"messages": 5, "readings": 40, "events": 1, "quarantine": 0, **wrong}, prepared)


def test_prepared_messages_are_what_agents_send() -> None:
    prepared = drain.prepare(1000, 1, time.time_ns() // 1000)
    batches = [check_batch(json.loads(payload)) for _, payload in prepared.messages]
    assert len({topic for topic, _ in prepared.messages}) == drain.NODES
    assert sum(len(batch.readings) for batch in batches) == prepared.readings
    assert sum(len(batch.events) for batch in batches) == prepared.events > 0
    assert all(not batch.rejected for batch in batches)


def test_the_yardstick_counts_nothing_twice_and_has_it_when_it_says_so(tmp_path: Path) -> None:
    prepared = drain.prepare(300, 1, time.time_ns() // 1000)
    group = [(topic.split("/")[3], payload) for topic, payload in prepared.messages]
    sink = Sink(tmp_path / "bare.db")
    sink.put(group)
    sink.put(group[:50])
    assert sink.db.execute("SELECT count(*) FROM samples").fetchone() == (prepared.readings,)
    assert sink.db.execute("SELECT count(*) FROM events").fetchone() == (prepared.events,)
    assert sink.db.execute("PRAGMA synchronous").fetchone() == (2,)
    sink.db.close()


def test_the_store_is_measured_beside_raw_inserts_of_the_same_rows(tmp_path: Path) -> None:
    figures = store.measure(tmp_path / "store", 1)
    assert len(figures) == 3
    assert all((figure.value or 0) > 0 and figure.peer_values[0] > 0 for figure in figures)


def test_the_command_writes_its_figures_and_fails_when_a_target_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for ratio, status in ((0.9, 0), (0.7, 1)):
        figure = Figure("readings", "readings/s", [ratio], "raw", [1.0], target=0.8)
        monkeypatch.setattr(store, "measure", lambda _folder, _rounds, figure=figure: [figure])
        assert bench.main(["--only", "store", "--out", str(tmp_path / "b.json")]) == status
        assert json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))[0]["ratio"] == ratio
    assert "readings" in capsys.readouterr().out
