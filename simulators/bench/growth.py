"""What a town costs as it grows: messages a second at equal load of 100, 1,000 and 100,000 nodes, and memory a node.

The role ingest over SQLite, in a process for each town, with a Mosquitto of its own: there waits what all nodes have said, sent
over one connection as by a bridge of brokers, and is taken up to the acks. All towns are alive, measured in turns. Every node has
spoken before: that is measured too, as memory.

python -m simulators.bench.growth FOLDER URL     (of each line on stdin, a number of messages, it prints one JSON object)
"""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edge.contract.topics import Channel, Topic, topic_for
from gateway.core import calm_collector
from gateway.flush import Answer, Message
from gateway.ingest import GatewayBrokerConfig, Ingest
from gateway.pipeline import Pipeline
from gateway.store import SqliteStore
from simulators.bench.drain import open_session, publish
from simulators.bench.figures import Figure
from simulators.bench.ours import GIVE_UP_S, Parts
from simulators.bench.servers import used_kib
from simulators.broker import mosquitto
from simulators.fleet import ROWS

TOWNS = (100, 1_000, 100_000)
STAYS, STAYS_LARGE = 0.6, 0.85
"""The targets: what of the messages a second is left in the next larger town."""
ALLOWED_KB = 2.0
"""Of memory, a node."""
_SESSION = "bench-growth"


def measure(folder: Path, messages: int, rounds: int, towns: tuple[int, int, int] = TOWNS) -> list[Figure]:
    """Four figures. RuntimeError when not every reading became durable."""
    small, middle, large = towns
    speeds: dict[int, list[float]] = {}
    grown: dict[int, tuple[float, float]] = {}
    with _towns(folder, towns) as made:
        for nodes in towns:
            half, whole = made[nodes].hear(nodes // 2), made[nodes].hear(nodes - nodes // 2)
            grown[nodes] = (half["kib"], whole["kib"])
            speeds[nodes] = []
        for number in range(rounds):
            for nodes in towns if number % 2 else reversed(towns):
                speeds[nodes].append(messages / made[nodes].hear(messages)["seconds"])
    before = grown[middle][1]
    kb = [(kib - before) / (count - middle) * 1.024 for kib, count in zip(grown[large], (large // 2, large), strict=True)]
    return [
        Figure(f"the same load of {middle:,} nodes", "msg/s", speeds[middle], f"of {small:,}", speeds[small], STAYS),
        Figure(f"the same load of {large:,} nodes", "msg/s", speeds[large], f"of {middle:,}", speeds[middle], STAYS_LARGE),
        Figure(
            f"memory a node of {len(ROWS)} series, of {large:,}", "kB", kb[1:], f"allowed: {ALLOWED_KB:g} kB", [ALLOWED_KB], 1.0,
            less_is_better=True,
        ),
        Figure(f"the same, of {large // 2:,}", "kB", kb[:1], less_is_better=True),
    ]  # fmt: skip


class _Town:
    """So many nodes, who speak one after the other, and the gateway that hears them."""

    def __init__(self, nodes: int, url: str, gateway: "subprocess.Popen[str]") -> None:
        self._nodes, self._url, self._gateway = nodes, url, gateway
        self._made, self._begun_us = 0, time.time_ns() // 1000
        self._boot_us = self._begun_us - 3_600_000_000

    def hear(self, messages: int) -> dict[str, Any]:
        """What the gateway says of so many messages, all of which wait when it begins."""
        now_us = time.time_ns() // 1000
        publish(self._url, [self._message(now_us) for _ in range(messages)])
        assert self._gateway.stdin is not None
        assert self._gateway.stdout is not None
        self._gateway.stdin.write(f"{messages}\n")
        self._gateway.stdin.flush()
        line = self._gateway.stdout.readline()
        if not line:
            raise RuntimeError("a town of the measurement ended; it said why above")
        found: dict[str, Any] = json.loads(line)
        if found["stored"] != self._made * len(ROWS):
            raise RuntimeError(f"{found['stored']} readings are stored, {self._made * len(ROWS)} were sent")
        return found

    def _message(self, now_us: int) -> tuple[str, bytes]:
        """A batch as the fleet's nodes send it, of the node whose turn it is: one reading of each of its series."""
        number, said = self._made % self._nodes, self._made // self._nodes
        self._made += 1
        seq, t0 = said * len(ROWS) + 1, self._begun_us + said * 2_000  # a ms holds one reading of a series
        rows = ",".join(f'[{seq + at},0,"{device}","{metric}",1]' for at, (device, metric) in enumerate(ROWS))
        payload = (
            f'{{"v":1,"epoch":"{number:016x}","boot":"{number:016x}","clock":"sync","t0":{t0},"mono0":{t0 - self._boot_us},'
            f'"sent":{now_us},"sent_mono":{now_us - self._boot_us},"readings":[{rows}],"events":[],"lost":[]}}'
        ).encode()
        return topic_for(Topic(f"town-{number:06d}", Channel.LIVE)), payload


@contextmanager
def _towns(folder: Path, sizes: tuple[int, ...]) -> Iterator[dict[int, _Town]]:
    with ExitStack() as stack:
        made = {}
        for nodes in sizes:
            here = folder / str(nodes)
            broker = stack.enter_context(mosquitto(here / "broker", save_every=0))
            open_session(broker.url, _SESSION)
            argv = [sys.executable, "-m", "simulators.bench.growth", str(here), broker.url]
            gateway = stack.enter_context(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            stack.callback(gateway.kill)
            made[nodes] = _Town(nodes, broker.url, gateway)
        yield made


class _Turn:
    """The pipeline, and the end of a turn after so many messages."""

    def __init__(self, pipeline: Pipeline, messages: int) -> None:
        self._pipeline, self._left = pipeline, messages
        self.stop: Callable[[], None] = lambda: None

    def process(self, messages: list[Message], now_us: int, away_since_us: int | None) -> list[Answer]:
        """As the pipeline's."""
        acks = self._pipeline.process(messages, now_us, away_since_us)
        self._left -= len(messages)
        if self._left <= 0:
            self.stop()
        return acks

    def save(self) -> None:
        """Nothing: in a gateway that goes on it is for the next ticks."""

    def anew(self) -> None:
        """Nobody else writes."""

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        """As the pipeline's."""
        self._pipeline.tick(now_us, listening_since_us)


def main() -> int:
    """The process that is measured."""
    sys.modules["numpy"] = None  # type: ignore[assignment]  # as in `ours`
    folder, url = Path(sys.argv[1]), sys.argv[2]
    parts = Parts(folder, rules={})
    assert isinstance(parts.store, SqliteStore)
    calm_collector()
    for line in sys.stdin:
        turn = _Turn(parts.pipeline, int(line))
        config = GatewayBrokerConfig(url=url, client_id=_SESSION)
        ingest = Ingest(config, turn, parts.telemetry, random.Random(1), lambda: time.time_ns() // 1000, None)
        turn.stop = ingest.stop
        guard = threading.Timer(GIVE_UP_S, ingest.stop)
        guard.daemon = True
        guard.start()
        begun = time.monotonic()
        ingest.run()
        seconds = time.monotonic() - begun
        guard.cancel()
        kib = used_kib()
        parts.store.fold(least=1)  # what waits to be put in its place: not while another town is measured
        print(json.dumps({"seconds": seconds, "kib": kib, "stored": parts.store.count()}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
