"""Messages a second from the broker to the acks: the gateway's own process beside the bare consumer's, same messages, in turns.

Both sessions wait in the broker before a message is published, so that both get every message; each consumer is timed from
its connect to its disconnect, after everything was acknowledged, and its database is counted afterwards.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.contract.broker import parse_url
from edge.contract.topics import up_filters
from simulators.bench.figures import Figure
from simulators.broker import Broker
from simulators.fleet import READINGS, make_nodes

NODES = 200
EVENTS = 0.05
"""Share of the messages that hold an event and no readings, as an agent's lanes send them."""
SPAN_US = 200_000_000
"""The batches of a node are so far apart in all: as if the gateway had been away for that long."""

_SIDES = ("ours", "bare")


class Prepared(NamedTuple):
    """What is published, and what must be in the databases afterwards."""

    messages: list[tuple[str, bytes]]
    readings: int
    events: int


def prepare(count: int, seed: int, now_us: int) -> Prepared:
    """Live batches of NODES nodes in turns, with times up to `now_us`."""
    rng = random.Random(seed)
    nodes = make_nodes(NODES, seed)
    rounds = -(-count // NODES)
    messages = []
    readings = events = 0
    for number in range(count):
        node = nodes[number % NODES]
        at_us = now_us - SPAN_US + (number // NODES) * SPAN_US // rounds
        if rng.random() < EVENTS:
            events += 1
            said = node.event(at_us)
        else:
            readings += READINGS
            said = node.readings(at_us)
        messages.append((node.topic, said.payload))
    return Prepared(messages, readings, events)


def measure(make: Callable[[Path], Broker], folder: Path, count: int, rounds: int) -> list[Figure]:
    """Two figures: messages a second, and CPU time a message. RuntimeError when a consumer lost or doubled something."""
    speed: dict[str, list[float]] = {side: [] for side in _SIDES}
    cost: dict[str, list[float]] = {side: [] for side in _SIDES}
    name = ""
    for number in range(rounds):
        here = folder / f"drain-{number}"
        with make(here / "broker") as broker:
            name = broker.name
            prepared = prepare(count, number, time.time_ns() // 1000)
            for side in _SIDES:
                open_session(broker.url, f"bench-{side}")
            publish(broker.url, prepared.messages)
            for side in _SIDES if number % 2 else reversed(_SIDES):
                (here / side).mkdir()
                result = consume(side, broker.url, here / side, count)
                check(side, result, prepared)
                speed[side].append(result["messages"] / result["seconds"])
                cost[side].append(result["cpu_s"] / result["messages"] * 1e6)
    peer = "bare paho consumer"
    return [
        Figure(f"pipeline from {name}", "msg/s", speed["ours"], peer, speed["bare"], target=0.8),
        Figure(f"CPU a message from {name}", "µs", cost["ours"], peer, cost["bare"], less_is_better=True),
    ]


def publish(url: str, messages: Sequence[tuple[str, bytes]]) -> None:
    """Returns when the broker has acknowledged all of them."""
    client = _client("bench-publisher", clean=True)
    client.max_inflight_messages_set(1000)
    host, port, _ = parse_url(url)
    client.connect(host, port)
    client.loop_start()
    handed = [client.publish(topic, payload, qos=1) for topic, payload in messages]
    for one in handed:
        one.wait_for_publish(60)
    client.disconnect()
    client.loop_stop()


def open_session(url: str, client_id: str) -> None:
    """Leaves a session with the gateway's subscriptions in the broker."""
    client = _client(client_id, clean=False)
    taken: list[int] = []
    client.on_connect = lambda client, *_: client.subscribe([(topic, 1) for topic in up_filters()])
    client.on_subscribe = lambda _client, _data, mid, *_: taken.append(mid)
    host, port, _ = parse_url(url)
    client.connect(host, port)
    deadline = time.monotonic() + 10
    while not taken:
        client.loop(0.1)
        if time.monotonic() > deadline:
            raise RuntimeError(f"{url} did not take the subscription of {client_id}")
    client.disconnect()


def _client(client_id: str, *, clean: bool) -> mqtt.Client:
    return mqtt.Client(CallbackAPIVersion.VERSION2, client_id, clean_session=clean, protocol=MQTTProtocolVersion.MQTTv311)


def consume(side: str, url: str, folder: Path, count: int, *more: str) -> dict[str, Any]:
    """What the measured process says of itself. `more`: further arguments of it."""
    argv = [sys.executable, "-m", f"simulators.bench.{side}", url, f"bench-{side}", str(folder), str(count), *more]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has imported and opened everything
        out, _ = process.communicate("go\n", timeout=180)
    if process.returncode:
        raise RuntimeError(f"the consumer `{side}` ended with status {process.returncode}; it said why above")
    result: dict[str, Any] = json.loads(out)
    return result


def check(side: str, result: dict[str, Any], prepared: Prepared) -> None:
    """RuntimeError where not all of it, or more, is in the side's database."""
    wanted = {"readings": prepared.readings, "events": prepared.events, "quarantine": 0}
    found = {"quarantine": 0, **result}
    wrong = {name: (found[name], number) for name, number in wanted.items() if found[name] != number}
    if wrong or result["messages"] < len(prepared.messages):
        raise RuntimeError(f"the consumer `{side}` took {result['messages']} messages; (has, should have): {wrong}")
