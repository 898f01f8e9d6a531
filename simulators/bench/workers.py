"""What it costs to share the work: CPU time a record of two ingest workers beside one, over the same PostgreSQL and store.

Real `satomori-gateway run --role ingest` processes, as the kernel accounts for them, and a fleet that counts their acks. Two
workers make smaller groups of the same load, and each looks after its own leases: that is what is measured. Where there are cores
enough the speed-up is, too.
"""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from simulators.bench import servers
from simulators.bench.figures import Figure
from simulators.broker import Broker, mosquitto
from simulators.town import beside_python, write_toml

RATE, FOR_S = 1600.0, 12.0
"""The load, in batches a second: it takes a fifth of a core of one worker. With much less it is measured what a worker costs that
has nothing to do; with much more two cores have no room for all that is not measured.
"""
NODES = 200
MOST = 1.15
"""The target: how much dearer a record may be."""
CORES = 8
"""From so many on the speed-up is measured, with FLAT_OUT batches a second."""
FLAT_OUT = 20_000.0
SETTLES_S = 5.0
"""So long after a worker came each has its share of the partitions: they look each second."""
_NAME, _PEER = "CPU a record of two ingest workers", "one worker"


def measure(folder: Path, rounds: int, rate: float = RATE, for_s: float = FOR_S) -> list[Figure]:
    """One figure; from CORES on two. RuntimeError when a record was not acknowledged."""
    folder.mkdir(parents=True)
    cost: dict[int, list[float]] = {1: [], 2: []}
    speed: dict[int, list[float]] = {1: [], 2: []}
    with ExitStack() as stack:
        try:
            state = stack.enter_context(servers.postgresql())
            store = stack.enter_context(servers.victoria_metrics(folder / "store"))
        except servers.Lacking as error:
            return [Figure(_NAME, "µs", [], _PEER, target=1 / MOST, less_is_better=True, lacking=str(error))]
        broker = stack.enter_context(mosquitto(folder / "broker", save_every=0))
        config = _configure(folder, broker, state, store)
        for number in range(rounds):
            for workers in (1, 2) if number % 2 == 0 else (2, 1):
                with _working(config, folder, workers) as spent:
                    _load(broker, min(rate, 100), 3)  # warm: every node is known, every partition heard
                    before = spent()
                    records, _ = _load(broker, rate, for_s)
                    parts = [(now - then) / records * 1e6 for now, then in zip(spent(), before, strict=True)]
                    if min(parts) < sum(parts) / workers / 3:
                        raise RuntimeError(f"the workers did not share the work: {parts} µs a record")
                    cost[workers].append(sum(parts))
                    if (os.cpu_count() or 1) >= CORES:
                        records, seconds = _load(broker, FLAT_OUT, for_s)
                        speed[workers].append(records / seconds)
    figures = [Figure(_NAME, "µs", cost[2], _PEER, cost[1], 1 / MOST, less_is_better=True)]
    if speed[1]:
        figures.append(Figure("records of two ingest workers", "records/s", speed[2], _PEER, speed[1]))
    return figures


def _configure(folder: Path, broker: Broker, state: str, store: str) -> Path:
    tokens = folder / "tokens"
    tokens.write_text(f"operator operator,officer {secrets.token_hex(16)}\n", encoding="utf-8")
    tokens.chmod(0o600)
    write_toml(
        folder / "gateway.toml",
        {
            "broker": {"url": broker.url},
            "state": {"url": state},
            "store": {"type": "victoriametrics", "url": store, "journal": str(folder / "journal")},
            "api": {"port": 0, "tokens_file": str(tokens)},
            "keep": {"erasures_file": str(folder / "erasures")},
            "media": {"folder": str(folder / "media")},
            "contact": {"phone": {"type": "webhook", "url": "http://127.0.0.1:9"}},
            "route": [{"to": ["phone"]}],
        },
    )
    return folder / "gateway.toml"


@contextmanager
def _working(config: Path, folder: Path, workers: int) -> Iterator[Callable[[], list[float]]]:
    """So many workers while the block runs; a function that tells the CPU time of each until now, in s."""
    argv = [str(beside_python("satomori-gateway")), "run", str(config), "--role", "ingest"]
    with ExitStack() as stack:
        pids = []
        for number in range(workers):
            log = folder / f"worker-{number}.log"
            log.unlink(missing_ok=True)
            pids.append(stack.enter_context(servers.running(argv, log, _is_up(log))))
        time.sleep(SETTLES_S)
        yield lambda: [servers.cpu_s(pid) for pid in pids]


def _is_up(log: Path) -> Callable[[], bool]:
    return lambda: "works as ingest" in log.read_text("utf-8")


def _load(broker: Broker, rate: float, for_s: float) -> tuple[int, float]:
    """(records, seconds until all were acknowledged). RuntimeError where one was not."""
    argv = [sys.executable, "-m", "simulators.fleet", broker.url, "--nodes", str(NODES), "--rate", str(rate),
            "--for", str(for_s), "--seed", "1", "--json"]  # fmt: skip
    begun = time.monotonic()
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, timeout=for_s + 90, check=False)
    report: dict[str, Any] = json.loads(done.stdout)
    if not report["ok"]:
        raise RuntimeError(f"{report['lost']} of {report['produced']} records were not acknowledged by the workers")
    return report["acked"], time.monotonic() - begun
