"""What a node that floods costs the others: 20 honest nodes from an alarm to its ack, in turns with and without it, in one run.

python -m simulators.bench.hostile gateway URL FOLDER     (until its stdin ends)
python -m simulators.bench.hostile flood URL SECONDS      (prints how many full batches it sent)

The flooder has FLOOD full batches a second, far more than its share, on the machine that is measured.
"""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.contract.broker import parse_url
from edge.contract.messages import Ack
from edge.contract.topics import ROOT, Channel, Topic, topic_for
from gateway.core import calm_collector, take_short_turns
from gateway.ingest import GatewayBrokerConfig, Ingest
from gateway.shares import ShareConfig, Shares
from simulators.bench.figures import Figure
from simulators.bench.latency import share
from simulators.bench.ours import Parts
from simulators.broker import Broker
from simulators.fleet import FleetNode, make_nodes

NODES, EVERY_S = 20, 0.2
"""Honest nodes, and how often each of them sends."""
ALARMS = 0.2
"""Share of their batches that hold an alarm. The others are readings, whose ack waits for a tick with a flood or without."""
FLOOD = 300
"""Full batches of the flooder a second: 150,000 readings."""
FOR_S = 8.0
PATIENCE_S = 30.0
WORST = 0.5
"""The target: the others' p99 is at most twice as long."""


def measure(make: Callable[[Path], Broker], folder: Path, for_s: float, rounds: int) -> list[Figure]:
    """p50 and p99 in ms, beside the same without the flooder. RuntimeError when an honest batch was not acknowledged."""
    took: dict[bool, list[list[float]]] = {True: [], False: []}
    batches = 0
    folder.mkdir(parents=True)
    with make(folder / "broker") as broker, _gateway(broker.url, folder), _Honest(broker.url) as honest:
        honest.talk(2)  # warm
        for number in range(rounds):
            for flooded in (False, True) if number % 2 == 0 else (True, False):
                with _flood(broker.url, for_s + 1, flooded) as flooder:
                    time.sleep(1 if flooded else 0)
                    took[flooded].append(honest.talk(for_s))
                batches += flooder[0]
                time.sleep(2)  # what the broker still holds of the flood is not the next turn's
        without = f"without {batches / rounds / (for_s + 1):.0f} full batches/s of one node"
    return [
        Figure(f"others' alarm to ack {label} beside a flood, {broker.name}", "ms", [share(one, part) for one in took[True]],
               without, [share(one, part) for one in took[False]], target=target, less_is_better=True)
        for label, part, target in (("p50", 0.5, None), ("p99", 0.99, WORST))
    ]  # fmt: skip


@contextmanager
def _gateway(url: str, folder: Path) -> Iterator[None]:
    argv = [sys.executable, "-m", "simulators.bench.hostile", "gateway", url, str(folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                raise RuntimeError("the gateway of the measurement did not start; it said why above")
            yield
        finally:
            process.communicate("", timeout=60)


@contextmanager
def _flood(url: str, for_s: float, flooded: bool) -> Iterator[list[int]]:
    sent = [0]
    if not flooded:
        yield sent
        return
    argv = [sys.executable, "-m", "simulators.bench.hostile", "flood", url, str(for_s)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield sent
            sent[0] = int(process.communicate(timeout=for_s + PATIENCE_S)[0])
        finally:
            process.kill()


class _Honest:
    """NODES nodes over one connection, each alarm timed from its publish to the ack that names it."""

    def __init__(self, url: str) -> None:
        self._nodes = make_nodes(NODES, 1)
        self._by_topic = {topic_for(Topic(node.name, Channel.ACK)): node for node in self._nodes}
        self._lock = threading.Lock()
        self._open: dict[tuple[str, int], tuple[float, bool]] = {}
        self._took_ms: list[float] = []
        self._client = _client("bench-honest")
        ready = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe(f"{ROOT}/+/+/{Channel.ACK}", 1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = self._heard
        _connect(self._client, url)
        if not ready.wait(PATIENCE_S):
            raise RuntimeError(f"{url} did not take the subscriptions of the honest nodes")

    def __enter__(self) -> "_Honest":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def talk(self, for_s: float) -> list[float]:
        """All nodes in turns, for so long; milliseconds of each alarm."""
        rng = random.Random(2)
        begun, number = time.monotonic(), 0
        while (at_s := number * EVERY_S / NODES) < for_s:
            time.sleep(max(begun + at_s - time.monotonic(), 0))
            self._send(self._nodes[number % NODES], alarm=rng.random() < ALARMS)
            number += 1
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with self._lock:
                if not self._open:
                    took, self._took_ms = self._took_ms, []
                    return took
            time.sleep(0.05)
        raise RuntimeError(f"{len(self._open)} of {number} batches of honest nodes were not acknowledged in {PATIENCE_S:g} s")

    def _send(self, node: FleetNode, *, alarm: bool) -> None:
        now_us = time.time_ns() // 1000
        said = node.event(now_us, alarm=True) if alarm else node.readings(now_us)
        with self._lock:
            self._open[node.name, said.high] = time.monotonic(), alarm
        self._client.publish(node.topic, said.payload, qos=1)

    def _heard(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        if message.topic not in self._by_topic:
            return  # the flooder's
        now, ack, node = time.monotonic(), Ack.model_validate_json(message.payload), self._by_topic[message.topic].name
        with self._lock:
            for key in [key for key in self._open if key[0] == node and _names(ack, key[1])]:
                begun, is_alarm = self._open.pop(key)
                if is_alarm:
                    self._took_ms.append((now - begun) * 1000)


def _names(ack: Ack, seq: int) -> bool:
    return seq <= ack.upto or any(low <= seq <= high for low, high in ack.ranges)


def _client(name: str) -> mqtt.Client:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv311)
    client.max_inflight_messages_set(0)
    return client


def _connect(client: mqtt.Client, url: str) -> None:
    host, port, _ = parse_url(url)
    client.connect(host, port)
    client.loop_start()


def _run_gateway(url: str, folder: Path) -> None:
    parts = Parts(folder)
    shares = Shares(ShareConfig())
    config = GatewayBrokerConfig(url=url)
    ingest = Ingest(config, parts.pipeline, parts.telemetry, random.Random(1), lambda: time.time_ns() // 1000, None, None, shares)
    parts.pipeline.contain(lambda *_: None, shares.charge)
    calm_collector()
    take_short_turns()
    thread = threading.Thread(target=ingest.run)
    thread.start()
    while ingest.fault is not None:
        time.sleep(0.01)
    print("ready", flush=True)
    sys.stdin.read()
    ingest.stop()
    thread.join()
    parts.close()


def _run_flood(url: str, for_s: float) -> None:
    [node] = make_nodes(1, 99)
    # Made beforehand: what is measured is not how fast Python makes batches. After these it says them again.
    said = [node.readings(time.time_ns() // 1000, 500).payload for _ in range(1500)]
    client = _client("bench-flooder")
    _connect(client, url)
    begun, number = time.monotonic(), 0
    last = None
    while time.monotonic() - begun < for_s:
        time.sleep(max(begun + number / FLOOD - time.monotonic(), 0))
        if last is not None and number % 50 == 0:
            last.wait_for_publish(10)
        last = client.publish(node.topic, said[number % len(said)], qos=1)
        number += 1
    print(number, flush=True)
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    if sys.argv[1] == "gateway":
        _run_gateway(sys.argv[2], Path(sys.argv[3]))
    else:
        _run_flood(sys.argv[2], float(sys.argv[3]))
