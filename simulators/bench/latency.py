"""From a pin that moves to the webhook that arrives, while many nodes talk: real broker, gateway and edge processes.

What is measured is the whole way: the switch's debounce, the outbox's commit, both hops over the broker, the gateway's
transactions, the delivery. It includes up to 20 ms by which the simulated pins look at their file.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from simulators.bench.figures import Figure
from simulators.broker import mosquitto
from simulators.fleet import FleetReport
from simulators.phone import Phone, Received
from simulators.town import Town
from simulators.world import SimDevice, SimNode, World

DEBOUNCE_MS = 20
EDGES, TRAPS = 4, 10
"""Real edges, and traps on each."""
MOST_RINGS = EDGES * TRAPS * 3
"""The edge folds what goes beyond six changes of a trap in a minute, and this would measure that."""
EVERY_S = 0.25
NODES = 200
NOTE = f"Latency includes debounce_ms = {DEBOUNCE_MS} and up to 20 ms of the simulated pins."

_RULES = {"trap-sprung": {"type": "occurrence", "event": "trap_sprung", "until": "trap_reset", "severity": "critical"}}
_PATIENCE_S = 30.0


class _Traps(World):
    """A town of nothing but traps."""

    def nodes(self) -> list[SimNode]:
        """EDGES of them."""
        traps = [SimDevice(f"trap-{number}", "reed_trap", "北尾根", f"北尾根 {number}番") for number in range(TRAPS)]
        return [SimNode(f"kitaone-{number}", traps) for number in range(EDGES)]


def measure(folder: Path, rate: float, rings: int) -> list[Figure]:
    """p50, p95 and p99 in ms, and what the load became. RuntimeError when a ring or a record of the load got lost."""
    if not 1 <= rings <= MOST_RINGS:
        raise RuntimeError(f"{rings} rings: {MOST_RINGS} at most, for the edge folds a trap that chatters")
    folder.mkdir(parents=True)
    with Phone() as phone:
        town = Town(folder / "town", mosquitto(folder / "broker", save_every=0), phone, _Traps(1), rules=_RULES)
        for edge in town.edges:
            debounce(edge.config, TRAPS)
        with town:
            wait_until_up(town, EDGES * TRAPS)
            argv = [sys.executable, "-m", "simulators.fleet", town.broker.url, "--nodes", str(NODES), "--rate", str(rate),
                    "--for", str(rings * EVERY_S + 5), "--json"]  # fmt: skip
            with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as fleet:
                try:
                    time.sleep(3)  # until the load stands
                    took_ms = _ring(town, phone, rings)
                    out, _ = fleet.communicate(timeout=120)
                finally:
                    fleet.kill()
            report = json.loads(out)
            lost = report.pop("lost")
            if not report.pop("ok"):
                raise RuntimeError(f"the load: {lost} of {report['produced']} records were not acknowledged")
    load = FleetReport(**report)
    at = f"at {load.messages / load.seconds:.0f} msg/s"
    return [
        Figure(f"pin to phone {name} {at}", "ms", [share(took_ms, part)], less_is_better=True)
        for name, part in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    ] + [
        Figure(f"batch to ack p50 {at}", "ms", [load.ack_p50_ms or 0], less_is_better=True),
        Figure(f"batch to ack p95 {at}", "ms", [load.ack_p95_ms or 0], less_is_better=True),
    ]  # fmt: skip


def _ring(town: Town, phone: Phone, rings: int) -> list[float]:
    """Springs the traps in turns, each reset half a turn later; from pin to phone in ms."""
    begun = time.monotonic()
    traps = [(edge, device.name) for device in town.edges[0].node.devices for edge in town.edges]
    moved_us: dict[tuple[str, str], list[int]] = {}
    for number in range(rings):
        edge, device = traps[number % len(traps)]
        _sleep_until(begun + number * EVERY_S)
        moved_us.setdefault((edge.node.name, device), []).append(time.time_ns() // 1000)
        town.set_trap(edge, device, sprung=True)
        _sleep_until(begun + (number + 0.5) * EVERY_S)
        town.set_trap(*traps[(number - len(traps) // 2) % len(traps)], sprung=False)
    # The load's own traps ring too; theirs are not counted.
    phone.wait_for(lambda received: sum(_trap(one) in moved_us for one in received) >= rings, _PATIENCE_S)
    took_ms = [(one.at_us - moved_us[_trap(one)].pop(0)) / 1000 for one in phone.seen() if _trap(one) in moved_us]
    if len(took_ms) != rings or min(took_ms) < 0:
        raise RuntimeError(f"{rings} springs, {len(took_ms)} messages on the phone, the fastest after {min(took_ms):.0f} ms")
    return took_ms


def _trap(one: Received) -> tuple[str, str]:
    return str(one.message.get("node")), str(one.message.get("device"))


def debounce(config: Path, traps: int) -> None:
    """Gives every trap of an edge.toml its debounce time, which Town leaves at the default."""
    before = config.read_text(encoding="utf-8")
    after = before.replace('type = "reed_trap"', f'type = "reed_trap", debounce_ms = {DEBOUNCE_MS}')
    assert after.count("debounce_ms") == traps
    config.write_text(after, encoding="utf-8")


def wait_until_up(town: Town, traps: int) -> None:
    """Until every trap has said something that the gateway has durably."""
    deadline = time.monotonic() + _PATIENCE_S
    while town.produced() < traps * 2:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the nodes did not come up; a log ends:\n{town.edges[0].program.log_end()}")
        time.sleep(0.1)
    town.settle()


def _sleep_until(at_s: float) -> None:
    time.sleep(max(at_s - time.monotonic(), 0))


def share(values: list[float], part: float) -> float:
    """The value that so much of them do not exceed."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]
