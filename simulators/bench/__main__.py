"""`make bench`: throughput and latency of the real code, each figure beside a peer where an honest one can be had.

drain      broker -> Ingest -> Pipeline -> acks, beside a bare consumer of the same messages
store      readings into the series store and through the pipeline, beside raw SQLite
series     a day of one series out of many, and writes while hours are summed up and readings forgotten
latency    from a pin that moves to the webhook, while many nodes talk
hostile    batch to ack of 20 nodes, with and without one that floods
alerts     from an event at the edge to LINE on a phone, at 100 events/s, while a thousand nodes talk
pages      until /install, /mimamori and /map say something on a slow phone, beside the same unthrottled
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from simulators.bench import alerts, drain, hostile, latency, pages, series, store
from simulators.bench.figures import Figure, machine, print_table, write_json
from simulators.broker import BrokerError, mosquitto, nats

_VERSIONS = (
    ("mosquitto", ("/usr/sbin/mosquitto", "-h")),
    ("chromium", ("chromium", "--version")),
    ("nats-server", (str(Path(sys.executable).parent / "nats-server"), "-v")),
)


PARTS = ("drain", "store", "series", "latency", "hostile", "alerts", "pages")


def main(argv: list[str] | None = None) -> int:
    """0 when every target was reached, 1 when one was missed or a measurement failed."""
    parser = argparse.ArgumentParser(
        prog="make bench", description="Measures the gateway; a figure is a median, its spread beside it."
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="Only this part; may be repeated.")
    parser.add_argument("--broker", choices=("mosquitto", "nats"), action="append", help="Brokers for `drain` (both).")
    parser.add_argument("--messages", type=int, default=40_000, help="Messages of one drain (40000).")
    parser.add_argument("--rounds", type=int, default=3, help="Repetitions (3).")
    parser.add_argument("--rows", type=int, default=5_000_000, help="Readings in the store during `series` (5000000).")
    parser.add_argument("--rate", type=float, default=500, help="Batches a second during `latency` (500).")
    parser.add_argument("--rings", type=int, default=100, help="Traps that spring during `latency` (100).")
    parser.add_argument("--alarms", type=float, default=10, help="Alarms during `alerts`, of 100 events a second (10).")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"), help="Where the figures go as JSON.")
    arguments = parser.parse_args(argv)
    only = arguments.only or PARTS
    progress = Console(stderr=True)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="satomori-bench-") as name:
        folder = Path(name)
        try:
            if "drain" in only:
                for broker in arguments.broker or ("mosquitto", "nats"):
                    progress.print(f"drain: {arguments.rounds} rounds of {arguments.messages} messages from {broker}")
                    if broker == "mosquitto":
                        figures += drain.measure(
                            lambda path: mosquitto(path, save_every=0), folder / broker, arguments.messages, arguments.rounds
                        )
                    else:
                        figures += drain.measure(nats, folder / broker, arguments.messages, arguments.rounds)
            if "store" in only:
                progress.print("store: readings into SQLite")
                figures += store.measure(folder / "store", max(arguments.rounds, 5))
            if "series" in only:
                progress.print(f"series: {arguments.rows} readings, about a minute for five million")
                figures += series.measure(folder / "series", arguments.rows)
            if "latency" in only:
                progress.print(f"latency: {arguments.rings} rings at {arguments.rate:g} batches/s, about a minute and a half")
                figures += latency.measure(folder / "latency", arguments.rate, arguments.rings)
            if "hostile" in only:
                progress.print(
                    f"hostile: {arguments.rounds} rounds of {hostile.FOR_S:g} s with and without a flood, about a minute"
                )
                figures += hostile.measure(nats, folder / "hostile", hostile.FOR_S, arguments.rounds)
            if "alerts" in only:
                progress.print(f"alerts: {arguments.alarms:g} alarms/s for {alerts.FOR_S:g} s, about a minute")
                figures += alerts.measure(folder / "alerts", arguments.alarms, alerts.FOR_S)
            if "pages" in only:
                if (why := pages.lacking()) is not None and arguments.only is None:
                    progress.print(f"pages: NOT MEASURED: {why}", markup=False)
                else:
                    rounds = max(arguments.rounds, 5)
                    progress.print(f"pages: {rounds} rounds of each page, slow and not, about two minutes")
                    figures += pages.measure(folder / "pages", rounds)
        except (BrokerError, RuntimeError, OSError) as error:
            progress.print(f"bench: {error}", markup=False)
            return 1
    notes = f"Medians (smallest..largest) of repetitions in turns with the peer. {latency.NOTE}"
    print_table(figures, f"{machine(_VERSIONS)}\n{notes}", Console())
    write_json(figures, arguments.out)
    return 1 if any(figure.missed for figure in figures) else 0


if __name__ == "__main__":
    raise SystemExit(main())
