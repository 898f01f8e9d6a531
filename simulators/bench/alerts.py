"""From an event at the edge to the message on a phone, by LINE, while a thousand nodes talk: real broker, gateway and edges.

Two figures of one run. Real edges: from a pin that moves, with the switch's debounce, the outbox's commit and up to 20 ms by
which the simulated pins look at their file. At the wire: from the publish of an alarm, each an alert, a page and a message of
its own, some of EVENTS a second; the rest of these are a town's: sightings, pictures, few traps. What is after the gateway is
LINE on loopback, which answers at once.
"""

import json
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge.contract.broker import parse_url
from simulators.bench import latency
from simulators.bench.figures import Figure
from simulators.broker import mosquitto
from simulators.escalation_storm import PeopleTown, Providers, Traps, Ways
from simulators.fleet import FleetNode, Said
from simulators.ports import free_port

EDGES, TRAPS = 2, 10
ALARM_NODES = 40
"""At the wire. Each has its own person, as an address takes one message at a time."""
NODES, RATE = 1000, 100
"""The nodes that only talk, and their batches of readings a second: each says ten readings every ten seconds."""
EVENTS = 100
"""Events a second, of alarms and nodes together."""
RING_EVERY_S, FOR_S = 0.5, 20.0
_PATIENCE_S = 60.0


class _AlarmNode(FleetNode):
    """Has as many traps as alarms: each is an alert, a page and a message of its own."""

    def alarm(self, now_us: int) -> Said:
        """One event."""
        seq, self._next = self._next, self._next + 1
        body = f'"device":"trap-{seq}","type":"trap_sprung","class":"alarm","folded":0'
        return Said(self._batch(now_us, "", f'{{"seq":{seq},"dt":0,{body}}}'), seq, seq)


def measure(folder: Path, rate: float, for_s: float) -> list[Figure]:
    """p50, p95 and p99 in ms of both. RuntimeError when a message or a record of the load got lost."""
    folder.mkdir(parents=True)
    port = free_port()
    people = [*(f"kitaone-{number}" for number in range(EDGES)), *(f"alarm-{number}" for number in range(ALARM_NODES))]
    groups: Mapping[str, Mapping[str, Ways]] = {f"of-{name}": {name: [("line", name)]} for name in people}
    routes: Sequence[Mapping[str, Any]] = [
        *({"name": f"route-{name}", "match": {"node": name}, "to": [f"of-{name}"]} for name in people),
        {"to": ["office"]},
    ]
    with Providers(f"http://127.0.0.1:{port}") as providers:
        broker = mosquitto(folder / "broker", save_every=0)
        town = PeopleTown(folder / "town", broker, providers, Traps(1, EDGES, TRAPS), groups, routes, api_port=port)
        for edge in town.edges:
            latency.debounce(edge.config, TRAPS)
        with town:
            latency.wait_until_up(town, EDGES * TRAPS)
            others = max(EVENTS - rate, 0)
            argv = [sys.executable, "-m", "simulators.fleet", broker.url, "--nodes", str(NODES), "--rate", str(RATE + others),
                    "--events", str(others / (RATE + others)), "--for", str(for_s + 6), "--json"]  # fmt: skip
            with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as fleet:
                try:
                    time.sleep(4)  # until the load stands
                    sent_us, rung_us = _play(town, rate, for_s)
                    _wait_for_all(providers, {**sent_us, **rung_us})
                    out, _ = fleet.communicate(timeout=120)
                finally:
                    fleet.kill()
            report = json.loads(out)
            if not report["ok"]:
                raise RuntimeError(f"the load: {report['lost']} of {report['produced']} records were not acknowledged")
    at = f"at {rate + others:.0f} events/s, {rate:.0f} of them alarms,"
    return [
        *_figures(f"pin to LINE {at}", _took_ms(providers, rung_us)),
        *_figures(f"alarm to LINE {at}", _took_ms(providers, sent_us)),
    ]


def _figures(name: str, took_ms: list[float]) -> list[Figure]:
    shares = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    return [Figure(f"{name} {said}", "ms", [latency.share(took_ms, part)], less_is_better=True) for said, part in shares]


def _play(town: PeopleTown, rate: float, for_s: float) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Alarms at the wire and pins that move, for so long: when each was, by node."""
    nodes = [_AlarmNode(f"alarm-{number}", random.Random(number)) for number in range(ALARM_NODES)]
    host, port, _ = parse_url(town.broker.url)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "bench-alarms")
    client.max_inflight_messages_set(1000)
    client.connect(host, port)
    client.loop_start()
    sent_us: dict[str, list[int]] = defaultdict(list)
    rung_us: dict[str, list[int]] = defaultdict(list)
    ringing = threading.Thread(target=_ring, args=(town, for_s, rung_us))
    try:
        for node in nodes:
            client.publish(*node.birth(time.time_ns() // 1000), qos=1)
        begun = time.monotonic()
        ringing.start()
        for number in range(int(rate * for_s)):
            time.sleep(max(begun + number / rate - time.monotonic(), 0))
            node, now_us = nodes[number % ALARM_NODES], time.time_ns() // 1000
            client.publish(node.topic, node.alarm(now_us).payload, qos=1)
            sent_us[node.name].append(now_us)
        ringing.join()
    finally:
        client.disconnect()
        client.loop_stop()
    return dict(sent_us), dict(rung_us)


def _ring(town: PeopleTown, for_s: float, rung_us: dict[str, list[int]]) -> None:
    """Springs the traps of the real edges in turns, and sets each again half a turn later."""
    traps = [(edge, f"trap-{number}") for number in range(TRAPS) for edge in town.edges]
    begun = time.monotonic()
    for number in range(int(for_s / RING_EVERY_S)):
        time.sleep(max(begun + number * RING_EVERY_S - time.monotonic(), 0))
        edge, device = traps[number % len(traps)]
        rung_us[edge.node.name].append(time.time_ns() // 1000)
        town.set_trap(edge, device, sprung=True)
        town.set_trap(*traps[(number - len(traps) // 2) % len(traps)], sprung=False)


def _wait_for_all(providers: Providers, sent_us: Mapping[str, Sequence[int]]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while any(len(providers.line.phone(name).messages) < len(times) for name, times in sent_us.items()):
        if time.monotonic() > deadline:
            shown = sum(len(providers.line.phone(name).messages) for name in sent_us)
            raise RuntimeError(f"{sum(map(len, sent_us.values()))} alarms, {shown} messages on the phones")
        time.sleep(0.1)


def _took_ms(providers: Providers, sent_us: Mapping[str, Sequence[int]]) -> list[float]:
    """One address gets one message at a time, the oldest first: so each is that of the alarm in its place."""
    took = []
    for name, times in sent_us.items():
        shown = [one.at_us for one in providers.line.phone(name).messages]
        if len(shown) != len(times):
            raise RuntimeError(f"{name}: {len(times)} alarms, {len(shown)} messages")
        took += [(at_us - since_us) / 1000 for since_us, at_us in zip(times, shown, strict=True)]
    return took
