"""The yardstick: the least a consumer must do that loses nothing and counts nothing twice. FROZEN: not to be made slower.

It decodes, drops what it has by (node, epoch, seq), writes a group in one transaction that is on disk when it commits, and only
then acknowledges over MQTT. It checks nothing, has no rules, no alerts, no quarantine, no `down/ack`, and forgets what it knows
when it ends. Nothing of satomori is imported but the names of the topics.

    python -m simulators.bench.bare URL CLIENT_ID FOLDER MESSAGES      (waits for a line on stdin, prints one JSON object)
"""

import gc
import json
import select
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from edge.contract.broker import parse_url
from edge.contract.topics import up_filters

GROUP = 1000
GIVE_UP_S = 120

_SCHEMA = """
CREATE TABLE series (id INTEGER PRIMARY KEY, node TEXT, device TEXT, metric TEXT);
CREATE TABLE samples (series INTEGER, time_ms INTEGER, value REAL, PRIMARY KEY (series, time_ms)) WITHOUT ROWID;
CREATE TABLE events (node TEXT, epoch TEXT, seq INTEGER, body TEXT);
"""


class Sink:
    """Durable once `put` has returned."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute("PRAGMA cache_size = -16384")  # both as the gateway's own store has them
        self.db.execute("PRAGMA wal_autocheckpoint = 4000")
        self.db.executescript(_SCHEMA)
        self.known: dict[tuple[str, str, int], None] = {}
        self.ids: dict[tuple[str, str, str], int] = {}

    def put(self, messages: Sequence[tuple[str, bytes | bytearray]]) -> None:
        """(node, payload) of a group, in one transaction."""
        known, ids = self.known, self.ids
        points: list[tuple[int, int, float]] = []
        events: list[tuple[str, str, int, bytes]] = []
        series: list[tuple[int, str, str, str]] = []
        for node, payload in messages:
            message: dict[str, Any] = orjson.loads(payload)
            epoch, t0 = message["epoch"], message["t0"]
            for seq, dt, device, metric, value in message["readings"]:
                if (identity := (node, epoch, seq)) in known:
                    continue
                known[identity] = None
                name = (node, device, metric)
                if (key := ids.get(name)) is None:
                    key = ids[name] = len(ids) + 1
                    series.append((key, *name))
                points.append((key, (t0 + dt) // 1000, value))
            for event in message["events"]:
                if (identity := (node, epoch, event["seq"])) not in known:
                    known[identity] = None
                    events.append((node, epoch, event["seq"], orjson.dumps(event)))
        points.sort()
        self.db.execute("BEGIN IMMEDIATE")
        if series:
            self.db.executemany("INSERT INTO series VALUES (?, ?, ?, ?)", series)
        if events:
            self.db.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", events)
        self.db.executemany("INSERT OR REPLACE INTO samples VALUES (?, ?, ?)", points)
        self.db.execute("COMMIT")


def drain(url: str, client_id: str, sink: Sink, messages: int) -> int:
    """Consumes so many messages of the waiting session; how many it got."""
    host, port, _ = parse_url(url)
    arrived: list[mqtt.MQTTMessage] = []
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, client_id, clean_session=False, protocol=MQTTProtocolVersion.MQTTv311, manual_ack=True
    )
    client.on_connect = lambda client, *_: client.subscribe([(topic, 1) for topic in up_filters()])
    client.on_message = lambda _client, _data, message: arrived.append(message)
    client.connect(host, port)
    got = 0
    deadline = time.monotonic() + GIVE_UP_S
    while got < messages and time.monotonic() < deadline and (sock := client.socket()) is not None:
        readable, writable, _ = select.select([sock], [sock] if client.want_write() else [], [], 0.5)
        if readable:
            before = -1
            while before < len(arrived) < GROUP:  # as long as whole packets come: large groups make few commits
                before = len(arrived)
                if client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    break
        if writable:
            client.loop_write()
        client.loop_misc()
        if arrived:
            sink.put([(message.topic.split("/", 4)[3], message.payload) for message in arrived])
            for message in arrived:
                client.ack(message.mid, message.qos)
            got += len(arrived)
            arrived.clear()
    client.disconnect()
    return got


def main() -> int:
    """The process that is measured."""
    url, client_id, folder, messages = sys.argv[1:]
    sink = Sink(Path(folder) / "bare.db")
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)  # as the gateway does: it is worth a fifth of the time
    print("ready", flush=True)
    sys.stdin.readline()
    begun, cpu_s = time.monotonic(), time.process_time()
    got = drain(url, client_id, sink, int(messages))
    seconds, cpu_s = time.monotonic() - begun, time.process_time() - cpu_s
    (readings,) = sink.db.execute("SELECT count(*) FROM samples").fetchone()
    (events,) = sink.db.execute("SELECT count(*) FROM events").fetchone()
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "messages": got, "readings": readings, "events": events}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
