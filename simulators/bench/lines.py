"""Readings a second into VictoriaMetrics: through the whole pipeline, beside influxdb-client with the same readings as lines.

Each of ours is parsed, checked, known by its number from then on, acknowledged, and on a disk: in our journal, until a snapshot
by a thread beside says that it is on VictoriaMetrics'. There are no rules. The bare client makes lines of what it has in memory,
and is done when VictoriaMetrics says 204.
"""

import time
from contextlib import closing
from pathlib import Path
from typing import Any

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS

from gateway.core import calm_collector
from gateway.pipeline import POINTS_AT_ONCE
from simulators.bench import servers
from simulators.bench.figures import Figure
from simulators.bench.ours import Parts
from simulators.bench.store import BATCH, Point, message, points
from simulators.fleet import make_nodes

GROUP = 200
"""Batches that ingest hands over together under load: 20,000 readings."""
GROUPS = 10
"""Of one repetition."""
NODES = 200
LEAST = 0.6


def measure(folder: Path, rounds: int) -> list[Figure]:
    """One figure. RuntimeError when not every reading arrived; without VictoriaMetrics it says so."""
    name, peer = f"readings into VictoriaMetrics, {GROUP} x {BATCH}", "bare influxdb-client, line strings"
    folder.mkdir(parents=True)
    try:
        servers.program("victoria-metrics")
    except servers.Lacking as error:
        return [Figure(name, "readings/s", [], peer, target=LEAST, lacking=str(error))]
    calm_collector()
    speeds: tuple[list[float], list[float]] = ([], [])
    with servers.victoria_metrics(folder / "store") as url, closing(Parts(folder, url, {})) as ours, _Bare(url) as bare:
        nodes = make_nodes(NODES, 1)
        for number in range(rounds + 1):
            ours_s = bare_s = 0.0
            for group in range(GROUPS):
                now_us = time.time_ns() // 1000
                said = [message(nodes[n % NODES], now_us + n * 1000) for n in range(GROUP)]
                first = (number * GROUPS + group) * GROUP
                same = [point for n in range(GROUP) for point in points(f"bare-{n % NODES}", first + n)]
                begun = time.perf_counter()
                ours.process(said)
                between = time.perf_counter()
                bare.write(same)
                ours_s, bare_s = ours_s + between - begun, bare_s + time.perf_counter() - between
            if number:  # the first names the series
                for speed, took_s in zip(speeds, (ours_s, bare_s), strict=True):
                    speed.append(GROUPS * GROUP * BATCH / took_s)
        time.sleep(2)  # until it shows what it took last
        wanted, count = 2 * (rounds + 1) * GROUPS * GROUP * BATCH, ours.store.count()
        if count != wanted:
            raise RuntimeError(f"{count} readings arrived in VictoriaMetrics, {wanted} were written")
    return [Figure(name, "readings/s", speeds[0], peer, speeds[1], LEAST)]


class _Bare:
    """influxdb-client, and nothing around it."""

    def __init__(self, url: str) -> None:
        self._client = InfluxDBClient(url, token="", org="satomori")
        self._write: Any = self._client.write_api(write_options=SYNCHRONOUS).write

    def __enter__(self) -> "_Bare":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()  # type: ignore[no-untyped-call]

    def write(self, readings: list[Point]) -> None:
        """As many at once as the gateway writes."""
        for start in range(0, len(readings), POINTS_AT_ONCE):
            lines = [
                f"{metric},device={device},node={node} value={value} {time_ms}"
                for (node, device, metric), time_ms, value in readings[start : start + POINTS_AT_ONCE]
            ]
            self._write(bucket="satomori", record=lines, write_precision="ms")
