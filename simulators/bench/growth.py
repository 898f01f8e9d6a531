"""What a town costs as it grows: messages a second at equal load of 100, 1,000 and 100,000 nodes, and memory a node.

What the role ingest does with a message, from its shares to the acks, over SQLite: in a process for each town, all of them alive
and measured in turns. Every node has spoken before: that is measured too, as memory. A message is made of its node's number when
it is due, so that of the nodes nothing is in memory but what the gateway keeps.

python -m simulators.bench.growth FOLDER NODES MESSAGES     (prints one JSON object, and one more for each line on stdin)
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edge.contract.topics import Channel, Topic, topic_for
from gateway.core import calm_collector
from gateway.flush import Message
from gateway.shares import ShareConfig, Shares
from gateway.store import SqliteStore
from simulators.bench.figures import Figure
from simulators.bench.ours import Parts
from simulators.bench.servers import used_kib
from simulators.fleet import ROWS

TOWNS = (100, 1_000, 100_000)
GROUP = 1000
STAYS, STAYS_LARGE = 0.6, 0.85
"""The targets: what of the messages a second is left in the next larger town."""
ALLOWED_KB = 2.0
"""Of memory, a node."""


def measure(folder: Path, messages: int, rounds: int, towns: tuple[int, int, int] = TOWNS) -> list[Figure]:
    """Three figures. RuntimeError when not every reading became durable."""
    messages = max(messages // GROUP, 1) * GROUP
    small, middle, large = towns
    speeds: dict[int, list[float]] = {nodes: [] for nodes in towns}
    with ExitStack() as stack:
        processes = {nodes: stack.enter_context(_town(folder / str(nodes), nodes, messages)) for nodes in towns}
        grown = {nodes: _said(processes[nodes]) for nodes in towns}
        for number in range(rounds):
            for nodes in towns if number % 2 else reversed(towns):
                process = processes[nodes]
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
                speeds[nodes].append(messages / _said(process)["seconds"])
    kb = [(grown[large][at] - grown[middle]["whole_kib"]) / (count - middle) * 1.024
          for at, count in (("half_kib", large // 2), ("whole_kib", large))]  # fmt: skip
    return [
        Figure(f"the same load of {middle:,} nodes", "msg/s", speeds[middle], f"of {small:,}", speeds[small], STAYS),
        Figure(f"the same load of {large:,} nodes", "msg/s", speeds[large], f"of {middle:,}", speeds[middle], STAYS_LARGE),
        Figure(
            f"memory a node of {len(ROWS)} series, of {large:,}", "kB", kb[1:], f"allowed: {ALLOWED_KB:g} kB", [ALLOWED_KB], 1.0,
            less_is_better=True,
        ),
        Figure(f"the same, of {large // 2:,}", "kB", kb[:1], less_is_better=True),
    ]  # fmt: skip


@contextmanager
def _town(folder: Path, nodes: int, messages: int) -> Iterator[subprocess.Popen[str]]:
    folder.mkdir(parents=True)
    argv = [sys.executable, "-m", "simulators.bench.growth", str(folder), str(nodes), str(messages)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _said(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a town of the measurement ended; it said why above")
    found: dict[str, Any] = json.loads(line)
    return found


class _Town:
    """So many nodes, one after the other, and the gateway that hears them."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self._parts, self._nodes = Parts(folder, rules={}), nodes
        self._shares = Shares(ShareConfig())
        self._made, self._begun_us = 0, time.time_ns() // 1000
        self._boot_us = self._begun_us - 3_600_000_000
        self._ticked_s = time.monotonic()

    def hear(self, messages: int) -> float:
        """Seconds that it took to make so many durable, without the making of them."""
        took_s = 0.0
        for start in range(0, messages, GROUP):
            now_us = time.time_ns() // 1000
            group = [self._message(now_us) for _ in range(min(GROUP, messages - start))]
            begun = time.perf_counter()
            self._parts.process(self._shares.take(group, now_us))
            while self._shares.due_s(now_us) == 0:  # what was more than a node's part of a group
                self._parts.process(self._shares.take([], now_us))
            if time.monotonic() - self._ticked_s > 1:  # as ingest does
                self._shares.tick(now_us)
                self._parts.pipeline.tick(now_us, None)
                self._ticked_s = time.monotonic()
            took_s += time.perf_counter() - begun
        return took_s

    def settle(self) -> None:
        """Puts in its place what waits for that: not while another town is measured."""
        store = self._parts.store
        assert isinstance(store, SqliteStore)
        store.fold(least=1)

    def check(self) -> None:
        """RuntimeError where not all of it arrived."""
        if (count := self._parts.store.count()) != self._made * len(ROWS):
            raise RuntimeError(f"{count} readings are stored, {self._made * len(ROWS)} were sent")

    def _message(self, now_us: int) -> Message:
        """A batch as the fleet's nodes send it, of the node whose turn it is: one reading of each of its series."""
        number, said = self._made % self._nodes, self._made // self._nodes
        self._made += 1
        seq, t0 = said * len(ROWS) + 1, self._begun_us + said * 2_000  # a ms holds one reading of a series
        rows = ",".join(f'[{seq + at},0,"{device}","{metric}",1]' for at, (device, metric) in enumerate(ROWS))
        payload = (
            f'{{"v":1,"epoch":"{number:016x}","boot":"{number:016x}","clock":"sync","t0":{t0},"mono0":{t0 - self._boot_us},'
            f'"sent":{now_us},"sent_mono":{now_us - self._boot_us},"readings":[{rows}],"events":[],"lost":[]}}'
        ).encode()
        return Message(topic_for(Topic(f"town-{number:06d}", Channel.LIVE)), payload)


def main() -> int:
    """The process that is measured."""
    folder, nodes, messages = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    town = _Town(folder, nodes)
    calm_collector()
    town.hear(nodes // 2)
    half_kib = used_kib()
    town.hear(nodes - nodes // 2)
    town.settle()
    print(json.dumps({"half_kib": half_kib, "whole_kib": used_kib()}), flush=True)
    for _ in sys.stdin:
        seconds = town.hear(messages)
        town.settle()
        town.check()
        print(json.dumps({"seconds": seconds}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
