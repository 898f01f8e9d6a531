"""The gateway's work in other programs: a Node-RED flow that does the same, and thingsboard-gateway, which only forwards.

The same messages wait in the same broker's sessions; each side in turn takes them all, and is timed from its first message.
Ours is what `drain` measures, with VictoriaMetrics as its store, and without rules. Where the peers do less, it is to their
advantage:

Node-RED parses, drops what it knows, writes 1,000 messages in one request, and acknowledges to the nodes after that. It forgets
what it knows when it ends; its mqtt-in acknowledges to the broker on receipt, whatever becomes of the message then; and it takes
VictoriaMetrics' word for stored, where we keep a journal until a snapshot says so.

thingsboard-gateway parses, and publishes each reading to its platform, over the same broker. It drops nothing, stores nothing,
and acknowledges nothing to a node. Its limits of rate are off. What it takes of one node within a millisecond gets one time
there, and of two values of a series one is gone: it may bring a few less than it was given.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.contract.topics import ROOT, up_filters
from simulators.bench import drain, servers
from simulators.bench.figures import Figure
from simulators.broker import Broker, mosquitto
from simulators.fleet import ROWS
from simulators.ports import free_port

BATCH = 1000
"""Messages of one of Node-RED's requests: it waits for as many."""
SHARE = 2
"""thingsboard-gateway gets one in so many of the messages: it would take too long with all of them. It is timed from the first
that it brings, by when it has read ahead: of a few thousand that would be much of the work."""
FASTER_THAN_NODE_RED, FASTER_THAN_THINGSBOARD, SMALLER = 1.3, 9.0, 3.0
WORK, FORWARD, MEMORY = "the same work as a Node-RED flow", "all of it, beside forwarding only", "most memory at that work"
_PATIENCE_S = 120.0
_QUIET_S = 5.0
"""thingsboard-gateway brings nothing more."""
_BRINGS = 0.99
"""At least, of its readings."""
_TELEMETRY = "v1/gateway/telemetry"


def measure(folder: Path, count: int, rounds: int) -> list[Figure]:
    """Messages a second and memory. RuntimeError where something was lost. A peer that can't be had is named, not measured."""
    count = max(count // BATCH, 1) * BATCH
    ours = [_ours(folder / f"ours-{number}", count, number) for number in range(rounds)]
    figures: list[Figure] = []
    speed, memory = [_speed(one) for one in ours], [one["most_mib"] for one in ours]
    try:
        argv, version = servers.node_red()
    except servers.Lacking as error:
        figures += [Figure(name, unit, [], "Node-RED", target=target, lacking=str(error))
                    for name, unit, target in ((WORK, "msg/s", FASTER_THAN_NODE_RED), (MEMORY, "MiB", SMALLER))]  # fmt: skip
    else:
        theirs = [_node_red(folder / f"node-red-{number}", argv, count, number) for number in range(rounds)]
        peer = f"Node-RED {version}"
        figures += [
            Figure(WORK, "msg/s", speed, peer, [_speed(one) for one in theirs], FASTER_THAN_NODE_RED),
            Figure(MEMORY, "MiB", memory, peer, [one["most_mib"] for one in theirs], SMALLER, less_is_better=True),
        ]
    try:
        argv, version = servers.thingsboard()
    except servers.Lacking as error:
        figures.append(Figure(FORWARD, "msg/s", [], "thingsboard-gateway", target=FASTER_THAN_THINGSBOARD, lacking=str(error)))
    else:
        forwarded = [_thingsboard(folder / f"thingsboard-{number}", argv, count // SHARE, number) for number in range(rounds)]
        peer = f"thingsboard-gateway {version}, {median(one['most_mib'] for one in forwarded):.0f} MiB"
        figures.append(Figure(FORWARD, "msg/s", speed, peer, [_speed(one) for one in forwarded], FASTER_THAN_THINGSBOARD))
    return figures


def _speed(result: dict[str, Any]) -> float:
    return float(result["messages"] / result["seconds"])


def _ours(folder: Path, count: int, seed: int) -> dict[str, Any]:
    with mosquitto(folder / "broker", save_every=0) as broker, servers.victoria_metrics(folder / "store") as store:
        prepared = drain.prepare(count, seed, time.time_ns() // 1000)
        drain.open_session(broker.url, "bench-ours")
        drain.publish(broker.url, prepared.messages)
        (folder / "ours").mkdir()
        result = drain.consume("ours", broker.url, folder / "ours", count, store)
        drain.check("ours", result, prepared)
        return result


def _node_red(folder: Path, argv: list[str], count: int, seed: int) -> dict[str, Any]:
    here, home = Path(__file__).parent / "node_red", folder / "home"
    home.mkdir(parents=True)
    for name in ("flow.json", "settings.js"):
        shutil.copy(here / name, home / name)
    with mosquitto(folder / "broker", save_every=0) as broker, servers.victoria_metrics(folder / "store") as store:
        prepared = drain.prepare(count, seed, time.time_ns() // 1000)
        drain.open_session(broker.url, "bench-node-red")
        drain.publish(broker.url, prepared.messages)
        env = {
            "SATOMORI_BROKER_PORT": str(broker.port),
            "SATOMORI_STORE": f"{store}/write?precision=ms",
            "SATOMORI_UI_PORT": str(free_port()),
        }
        argv = [*argv, "--userDir", str(home), "--settings", str(home / "settings.js"), "flow.json"]
        said: dict[str, Any] = {"messages": 0}

        def heard(message: mqtt.MQTTMessage) -> None:
            said.update(json.loads(message.payload))

        with (
            _hearing(broker, [("bench/done", 1)], heard),
            servers.running(argv, folder / "log", lambda: said["messages"] >= count, env=env, patience_s=_PATIENCE_S) as pid,
        ):
            found = {**said, "most_mib": servers.most_mib(pid)}
        wanted = prepared.readings + prepared.events
        if found["records"] != wanted or found["messages"] != count:
            raise RuntimeError(f"Node-RED stored {found['records']} of {wanted} records, of {found['messages']} messages")
        return found


def _thingsboard(folder: Path, argv: list[str], count: int, seed: int) -> dict[str, Any]:
    """Its platform is us: we say that we have no limits to tell, and count what it brings."""
    times: list[float] = []
    folder.mkdir(parents=True)
    with mosquitto(folder / "broker", save_every=0) as broker:
        prepared = drain.prepare(count, seed, time.time_ns() // 1000)
        drain.open_session(broker.url, "bench-thingsboard")
        drain.publish(broker.url, prepared.messages)
        _configure(folder / "config", broker.port)
        # It asks for a newer version of itself, over the proxy of which it is told: from nobody.
        env = {
            "TB_GW_CONFIG_DIR": f"{folder / 'config'}/",
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "HTTP_PROXY": "http://127.0.0.1:9",
        }

        def heard(message: mqtt.MQTTMessage) -> None:
            if message.topic == _TELEMETRY:
                now = time.monotonic()
                devices: dict[str, list[dict[str, Any]]] = json.loads(message.payload)
                times.extend(now for entries in devices.values() for entry in entries for _ in entry["values"])
            else:
                answer = message.topic.replace("request", "response")
                platform.publish(answer, json.dumps({"error": "there is nothing to tell"}), 1)

        def all_brought() -> bool:
            return len(times) >= prepared.readings or bool(times and time.monotonic() - times[-1] > _QUIET_S)

        with (
            _hearing(broker, [(_TELEMETRY, 0), ("v1/devices/me/rpc/request/+", 1)], heard) as platform,
            # It writes logs of its own to where it works.
            servers.running(argv, folder / "log", all_brought, env=env, cwd=folder, patience_s=_PATIENCE_S) as pid,
        ):
            most_mib = servers.most_mib(pid)
    if not _BRINGS * prepared.readings <= len(times) <= prepared.readings:
        raise RuntimeError(f"thingsboard-gateway forwarded {len(times)} readings of {prepared.readings}")
    return {"messages": count, "seconds": times[-1] - times[0], "most_mib": most_mib}


def _configure(folder: Path, port: int) -> None:
    """As it comes, but without limits of rate, statistics and remote care; each of a node's readings is a value of its own."""
    folder.mkdir()
    unlimited = (
        "rateLimits",
        "dpRateLimits",
        "messagesRateLimits",
        "deviceMessagesRateLimits",
        "deviceRateLimits",
        "deviceDpRateLimits",
    )
    told: dict[str, Any] = {
        "thingsboard": {
            "host": "127.0.0.1", "port": port, "security": {"type": "accessToken", "accessToken": "invented"}, "qos": 1,
            "remoteShell": False, "remoteConfiguration": False, "statistics": {"enable": False},
            "deviceFiltering": {"enable": False}, "checkConnectorsConfigurationInSeconds": 3600,
            "checkingDeviceActivity": {"checkDeviceInactivity": False}, "reportStrategy": {"type": "ON_RECEIVED"},
            "maxPayloadSizeBytes": 8196, "minPackSendDelayMS": 50, "minPackSizeToSend": 500, **dict.fromkeys(unlimited, "0:0,"),
        },
        "storage": {"type": "memory", "read_records_count": 100, "max_records_count": 100_000},
        "grpc": {"enabled": False},
        "connectors": [{"type": "mqtt", "name": "town", "configuration": "mqtt.json"}],
    }  # fmt: skip
    device = {
        "deviceNameExpressionSource": "topic", "deviceNameExpression": f"(?<={ROOT}/../)(.*?)(?=/up/)",
        "deviceProfileExpressionSource": "constant", "deviceProfileExpression": "node",
    }  # fmt: skip
    values = [
        {"type": "double", "key": f"{name}.{metric}", "value": f"${{readings.[{row}].[4]}}"}
        for row, (name, metric) in enumerate(ROWS)
    ]
    converter = {"type": "json", "deviceInfo": device, "sendDataOnlyOnChange": False, "attributes": [], "timeseries": values}
    connector: dict[str, Any] = {
        "broker": {"host": "127.0.0.1", "port": port, "clientId": "bench-thingsboard", "version": 4, "cleanSession": False,
                   "maxMessageNumberPerWorker": 10, "maxNumberOfWorkers": 100, "security": {"type": "anonymous"}},
        "mapping": [{"topicFilter": up_filters()[0], "subscriptionQos": 1, "converter": converter}],
    }  # fmt: skip
    stream = {"class": "logging.StreamHandler"}
    logs: dict[str, Any] = {"version": 1, "handlers": {"console": stream}, "root": {"level": "ERROR", "handlers": ["console"]}}
    for file, content in (("tb_gateway", told), ("mqtt", connector), ("logs", logs)):
        (folder / f"{file}.json").write_text(json.dumps(content), encoding="utf-8")


@contextmanager
def _hearing(broker: Broker, topics: list[tuple[str, int]], heard: Callable[[mqtt.MQTTMessage], None]) -> Iterator[mqtt.Client]:
    """A client that hears these, in a thread of its own, while the block runs."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "bench-ear", protocol=MQTTProtocolVersion.MQTTv311)
    ready = threading.Event()
    client.on_connect = lambda client, *_: client.subscribe(topics)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _client, _data, message: heard(message)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        if not ready.wait(10):
            raise RuntimeError(f"{broker.url} did not take the subscriptions of the bench")
        yield client
    finally:
        client.disconnect()
        client.loop_stop()
