"""`make bench`: throughput and latency of the real code, each figure beside a peer where an honest one can be had.

drain      broker -> Ingest -> Pipeline -> acks, beside a bare consumer of the same messages
peers      the same into VictoriaMetrics, beside a Node-RED flow that does it too, and thingsboard-gateway, which only forwards
store      readings into the series store and through the pipeline, beside raw SQLite
lines      readings through the pipeline into VictoriaMetrics, beside bare influxdb-client
workers    CPU time a record of two ingest workers over PostgreSQL, beside one
growth     messages a second and memory of 100, 1,000 and 100,000 nodes
series     a day of one series out of many, and writes while hours are summed up and readings forgotten
chart      the same day by the API, of a gateway that is busy
latency    from a pin that moves to the webhook, while many nodes talk
hostile    batch to ack of 20 nodes, with and without one that floods
alerts     from an event at the edge to LINE on a phone, at 100 events/s, while a thousand nodes talk
pages      until /install, /mimamori and /map say something on a slow phone, beside the same unthrottled
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from simulators.bench import alerts, chart, drain, growth, hostile, latency, lines, pages, peers, series, store, workers
from simulators.bench.figures import Figure, machine, print_table, write_json, write_page
from simulators.broker import Broker, BrokerError, mosquitto, nats

_VERSIONS = (
    ("mosquitto", ("/usr/sbin/mosquitto", "-h")),
    ("chromium", ("chromium", "--version")),
    ("victoria-metrics", ("victoria-metrics", "-version")),
    ("nats-server", (str(Path(sys.executable).parent / "nats-server"), "-v")),
)


class _Part(NamedTuple):
    """One measurement: what it says before it begins, and how it is done in a folder of its own."""

    say: str
    measure: Callable[[Path, argparse.Namespace], list[Figure]]


def _drain(folder: Path, chosen: argparse.Namespace) -> list[Figure]:
    makers: dict[str, Callable[[Path], Broker]] = {"mosquitto": lambda path: mosquitto(path, save_every=0), "nats": nats}
    return [
        figure
        for name in chosen.broker or makers
        for figure in drain.measure(makers[name], folder / name, chosen.messages, chosen.rounds)
    ]


def _pages(folder: Path, chosen: argparse.Namespace) -> list[Figure]:
    if chosen.only is None and (why := pages.lacking()) is not None:
        return [Figure("the pages", "s", [], lacking=why)]
    return pages.measure(folder, max(chosen.rounds, 5))


PARTS: dict[str, _Part] = {
    "drain": _Part("{rounds} rounds of {messages} messages from each broker", _drain),
    "peers": _Part(
        "{rounds} rounds of each, after Node-RED and thingsboard-gateway are installed",
        lambda folder, chosen: peers.measure(folder, chosen.messages // 2, chosen.rounds),
    ),
    "store": _Part("readings into SQLite", lambda folder, chosen: store.measure(folder, max(chosen.rounds, 5))),
    "lines": _Part("readings into VictoriaMetrics", lambda folder, chosen: lines.measure(folder, max(chosen.rounds, 5))),
    "workers": _Part(
        "{rounds} rounds of one ingest worker and of two, about two minutes",
        lambda folder, chosen: workers.measure(folder, chosen.rounds),
    ),
    "growth": _Part(
        "{rounds} rounds of towns of 100, 1,000 and 100,000 nodes, about two minutes",
        lambda folder, chosen: growth.measure(folder, chosen.messages, chosen.rounds),
    ),
    "series": _Part(
        "{rows} readings, about a minute for five million", lambda folder, chosen: series.measure(folder, chosen.rows)
    ),
    "chart": _Part(
        f"{chart.CHARTS} charts of a day, after {{rows}} readings are made: a minute for five million, once",
        lambda folder, chosen: chart.measure(folder, chosen.rows),
    ),
    "latency": _Part(
        "{rings} rings at {rate:g} batches/s, about a minute and a half",
        lambda folder, chosen: latency.measure(folder, chosen.rate, chosen.rings),
    ),
    "hostile": _Part(
        f"{{rounds}} rounds of {hostile.FOR_S:g} s with and without a flood, about a minute",
        lambda folder, chosen: hostile.measure(nats, folder, hostile.FOR_S, chosen.rounds),
    ),
    "alerts": _Part(
        f"{{alarms:g}} alarms/s for {alerts.FOR_S:g} s, about a minute",
        lambda folder, chosen: alerts.measure(folder, chosen.alarms, alerts.FOR_S),
    ),
    "pages": _Part("each page, slow and not, about two minutes", _pages),
}


def main(argv: list[str] | None = None) -> int:
    """0 when every target was reached, 1 when one was missed or a measurement failed."""
    parser = argparse.ArgumentParser(
        prog="make bench", description="Measures the gateway; a figure is a median, its spread beside it."
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="Only this part; may be repeated.")
    parser.add_argument("--broker", choices=("mosquitto", "nats"), action="append", help="Brokers for `drain` (both).")
    parser.add_argument(
        "--messages", type=int, default=40_000, help="Messages of one `drain` or town; the half in `peers` (40000)."
    )
    parser.add_argument("--rounds", type=int, default=3, help="Repetitions (3).")
    parser.add_argument("--rows", type=int, default=5_000_000, help="Readings in the store in `series`, `chart` (5000000).")
    parser.add_argument("--rate", type=float, default=500, help="Batches a second during `latency` (500).")
    parser.add_argument("--rings", type=int, default=100, help="Traps that spring during `latency` (100).")
    parser.add_argument("--alarms", type=float, default=10, help="Alarms during `alerts`, of 100 events a second (10).")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"), help="Where the figures go as JSON.")
    parser.add_argument("--page", type=Path, help="A page as docs/figures.md, in which what was measured is renewed.")
    chosen = parser.parse_args(argv)
    progress = Console(stderr=True)
    figures: list[Figure] = []
    failed = False
    with tempfile.TemporaryDirectory(prefix="satomori-bench-") as name:
        for part in chosen.only or PARTS:
            progress.print(f"{part}: {PARTS[part].say.format(**vars(chosen))}", markup=False)
            try:
                figures += PARTS[part].measure(Path(name) / part, chosen)
            except (BrokerError, RuntimeError, OSError, subprocess.SubprocessError) as error:
                progress.print(f"bench: {part}: {error}", markup=False)  # the other parts are measured all the same
                failed = True
    notes = f"Medians (smallest..largest) of repetitions in turns with the peer. {latency.NOTE}"
    print_table(figures, f"{machine(_VERSIONS)}\n{notes}", Console())
    write_json(figures, chosen.out)
    if chosen.page is not None:
        write_page(figures, chosen.page, machine(()), datetime.now(UTC).date())
    return 1 if failed or any(figure.missed for figure in figures) else 0


if __name__ == "__main__":
    raise SystemExit(main())
