"""The figures of scale measure real servers and processes, name what they could not measure, and keep their page."""

import json
from datetime import date
from pathlib import Path

import pytest

from simulators.bench import chart, growth, lines, peers, servers, workers
from simulators.bench.figures import Figure, write_page
from tests.services import require_binary

PAGE = """# Figures

| work | target | last measured | machine | date |
|---|---|---|---|---|
| readings | 0.8 | not yet | | |
| chart | 1 | not yet | | |

The end.
"""


def test_a_page_gets_the_rows_that_were_measured_and_keeps_the_others(tmp_path: Path) -> None:
    page = tmp_path / "figures.md"
    page.write_text(PAGE, encoding="utf-8")
    figures = [
        Figure("readings", "readings/s", [40_000.0], "raw", [50_000.0], target=0.9),
        Figure("new", "ms", [4.0], "allowed: 8 ms", [8.0], target=1.0, less_is_better=True),
        Figure("chart", "ms", [], "allowed", target=1.0, lacking="no server"),
        Figure("without a target", "ms", [1.0]),
    ]
    write_page(figures, page, "two cores", date(2026, 6, 3))
    assert page.read_text(encoding="utf-8") == PAGE.replace(
        "| readings | 0.8 | not yet | | |",
        "| readings | 0.9 | 0.80, missed: 40,000 readings/s; raw: 50,000 readings/s | two cores | 2026-06-03 |",
    ).replace(
        "| chart | 1 | not yet | | |\n",
        "| chart | 1 | not yet | | |\n| new | 1 | 2.00: 4 ms; allowed: 8 ms: 8 ms | two cores | 2026-06-03 |\n",
    )


def test_a_page_without_the_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# Something else\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no table"):
        write_page([], tmp_path / "page.md", "", date(2026, 6, 3))


def test_what_is_not_here_is_named_in_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(_name: str) -> str:
        raise servers.Lacking("victoria-metrics is not on this machine: apt-get install victoria-metrics")

    monkeypatch.setattr(servers, "program", lacking)
    (figure,) = lines.measure(tmp_path / "lines", 1)
    assert not figure.missed
    assert "apt-get install" in str(figure.row()["lacking"])
    assert figure.row()["met"] is None


def test_readings_go_through_the_pipeline_into_a_real_victoria_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_binary("victoria-metrics")
    monkeypatch.setattr(lines, "GROUPS", 1)
    (figure,) = lines.measure(tmp_path / "lines", 1)  # raises when one of them is not there
    assert figure.target == 0.6
    assert figure.ratio is not None


def test_towns_are_measured_in_turns_and_their_memory_by_the_node(tmp_path: Path) -> None:
    require_binary("mosquitto")
    figures = growth.measure(tmp_path / "growth", 1000, 1, (10, 50, 2000))
    assert [figure.target for figure in figures] == [0.6, 0.85, 1.0, None]
    assert all((figure.value or 0) > 0 for figure in figures[:2])


def test_a_chart_is_timed_over_a_real_gateway_and_its_file_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_binary("mosquitto")
    monkeypatch.setattr(servers, "INSTALLED", tmp_path / "kept")
    monkeypatch.setattr(chart, "SERIES", 10)
    p95, p50 = chart.measure(tmp_path / "chart", 0, charts=5)  # raises when a chart is not whole
    assert "0.0288 M readings" in p95.name
    assert 0 < (p50.value or 0) <= (p95.value or 0)
    assert (tmp_path / "kept" / "series-2880.db").exists()


def test_the_flow_of_node_red_is_one_that_does_the_work() -> None:
    flow = json.loads((Path(peers.__file__).parent / "node_red" / "flow.json").read_text(encoding="utf-8"))
    wired = {node["id"]: [one for wires in node.get("wires", []) for one in wires] for node in flow}
    way, at = [], "live"
    while at not in way:
        way.append(at)
        at = wired[at][0] if wired[at] else at
    assert way == ["live", "parse", "dedupe", "batch", "join", "body", "store", "acks", "down"]
    assert next(node for node in flow if node["id"] == "batch")["count"] == str(peers.BATCH)


def test_two_workers_are_held_to_what_one_costs() -> None:
    assert workers.MOST == 1.15
    figure = Figure("CPU", "µs", [114.0], "one worker", [100.0], 1 / workers.MOST, less_is_better=True)
    assert not figure.missed
    assert figure._replace(values=[116.0]).missed
