"""`make bench-edge`: what one agent costs a small Pi, beside a loop that only publishes the same records.

A real `satomori-edge run` with all four kinds of device at their simulated seams and remote care, a real broker, and the
gateway's real pipeline to acknowledge; every byte between agent and broker is counted on the way. Then a day's backlog drains
while traps spring. CPU and memory are the kernel's own figures of that process.
"""

import argparse
import base64
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import venv
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console

from edge.clock import Instant, machine_id
from edge.contract.remote import Expected
from edge.contract.topics import Channel, Topic, parse, topic_for
from edge.outbox import Outbox
from edge.records import Reading
from gateway.nodes.signing import Signer
from gateway.pipeline import Message
from simulators.bench.figures import Figure, machine, print_table, write_json
from simulators.bench.ours import Parts
from simulators.broker import Broker, BrokerError, nats
from simulators.hardware import PinsFile, SerialPort, advertisement_line, counter_frame, picture, save_picture
from simulators.town import Program, beside_python, write_toml
from simulators.world import Tag

NODE = "kitayama-03"
TRAPS = 20
TAGS = 200
RSS_MIB = 60
"""The target: with all four kinds, on a Pi Zero 2 W with 512 MiB."""
BACKLOG = 36_000
"""24 hours at 25 readings a minute."""
_UUID = bytes(range(16))
_PATIENCE_S = 60.0


class Counted:
    """A way to the broker that counts what passes."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.bytes = 0
        threading.Thread(target=self._accept, name="counted", daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            for one, other in ((near, far), (far, near)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65_536):
                self.bytes += len(data)
                other.sendall(data)
        except OSError:
            pass
        finally:
            for end in (one, other):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:  # it is closed already
                    pass


class Gateway:
    """The gateway's pipeline behind a plain MQTT client: it stores and acknowledges."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir()
        self._parts = Parts(folder)
        self.arrived: dict[tuple[str, str], list[float]] = {}  # device and type -> monotonic times at which it was durable
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, "bench-gateway")
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        for channel in ("live", "backlog", "birth", "state"):
            self._client.subscribe(f"satomori/v1/+/+/up/{channel}", qos=1)
        self._client.loop_start()

    def _on_message(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        payload = bytes(message.payload)
        acks = self._parts.pipeline.process([Message(message.topic, payload)], time.time_ns() // 1000)
        if parse(message.topic).channel in (Channel.LIVE, Channel.BACKLOG):
            for event in json.loads(payload)["events"]:
                self.arrived.setdefault((event["device"], event["type"]), []).append(time.monotonic())
        for topic, ack, surely in acks:
            client.publish(topic, ack, qos=int(surely))

    def say_expected(self, signer: Signer) -> None:
        """The node checks a signature, and has in memory from then on what every claimed node has: the library that does it."""
        signed = signer.sign(Expected(node=NODE, revision=1, tags=[])).payload
        self._client.publish(topic_for(Topic(NODE, Channel.EXPECTED)), signed, qos=1, retain=True)

    def close(self) -> None:
        """Ends it."""
        self._client.disconnect()
        self._client.loop_stop()
        self._parts.close()


class Process(NamedTuple):
    """What the kernel says of a process."""

    cpu_s: float
    written: int
    rss_mib: float
    pss_mib: float

    @classmethod
    def of(cls, pid: int) -> "Process":
        """From /proc/PID/{stat,io,status,smaps_rollup} (proc(5)); `written` is what it caused to be sent to the disk."""
        proc = Path("/proc") / str(pid)
        fields = (proc / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])  # utime, stime
        return cls(
            ticks / os.sysconf("SC_CLK_TCK"),
            int(_after((proc / "io").read_text(encoding="ascii"), "\nwrite_bytes:")),
            int(_after((proc / "status").read_text(encoding="utf-8"), "VmRSS:")) / 1024,
            int(_after((proc / "smaps_rollup").read_text(encoding="ascii"), "\nPss:")) / 1024,
        )


class Desk:
    """One agent and the far ends of its devices."""

    def __init__(self, folder: Path, port: int, signer: Signer, *, ballast: int = 0) -> None:
        folder.mkdir()
        keys = folder / "keys.json"
        keys.write_text(json.dumps([base64.b64encode(signer.public).decode()]), encoding="ascii")
        self.outbox = folder / "state" / "outbox.db"
        if ballast:
            _fill(self.outbox, ballast)
        self._pins = PinsFile(folder / "pins")
        self._sprung = dict.fromkeys(range(TRAPS), False)
        for trap in range(TRAPS):
            self._pins.high(trap)
        self._counter, self._receiver = SerialPort(folder / "counter"), SerialPort(folder / "receiver")
        self._card = folder / "card"
        self._card.mkdir()
        self._people = 0
        self._tags = [Tag("ibeacon", _UUID + number.to_bytes(4, "big")) for number in range(TAGS)]
        devices: dict[str, Any] = {f"trap-{trap}": {"type": "reed_trap", "pin": trap} for trap in range(TRAPS)}
        devices |= {
            "node": {"type": "node_health"},
            "counter": {"type": "people_counter", "port": str(self._counter.path)},
            "tags": {"type": "ble_tags", "port": str(self._receiver.path), "ibeacon_uuids": [_UUID.hex()]},
            "camera": {"type": "trail_camera", "folder": str(self._card)},
        }
        write_toml(
            folder / "edge.toml",
            {
                "node": {"name": NODE, "state": str(folder / "state")},
                "broker": {"url": f"mqtt://127.0.0.1:{port}", "backoff_cap_s": 1.0},
                "remote": {"url": "https://127.0.0.1:1", "keys_file": str(keys)},
                "device": devices,
            },
        )
        argv = [str(beside_python("satomori-edge")), "run", str(folder / "edge.toml")]
        self.program = Program(argv, folder / "edge.log", self._pins.environment)

    def __enter__(self) -> "Desk":
        self.program.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.program.end()
        self._counter.unplug()
        self._receiver.unplug()

    @property
    def pid(self) -> int:
        """The agent's process. RuntimeError with its log when it has ended."""
        process = self.program.process
        if process is None or process.poll() is not None:
            raise RuntimeError(f"the agent ended; its log ends:\n{self.program.log_end()}")
        return process.pid

    def move_trap(self, trap: int) -> str:
        """Springs a trap, or sets it again; the type of the event that comes of it."""
        self._sprung[trap] = not self._sprung[trap]
        (self._pins.low if self._sprung[trap] else self._pins.high)(trap)
        return "trap_sprung" if self._sprung[trap] else "trap_reset"

    def live(self, second: int) -> None:
        """One second of a busy place: all tags heard, people pass, a trap moves each ten seconds, a picture each five."""
        self._people += second % 3
        self._counter.write(counter_frame(self._people, self._people // 2, 3700))
        self._receiver.write(b"".join(advertisement_line(tag, -60 - second % 20) for tag in self._tags))
        if second % 10 == 0:
            self.move_trap(second // 10 % TRAPS)
        if second % 5 == 0:
            at_us = time.time_ns() // 1000
            save_picture(self._card, at_us, picture(at_us, "wild-boar", seed=1))

    def is_cared_for(self) -> bool:
        """Whether it has checked what the gateway said under its signature."""
        return (self.outbox.parent / "expected.json").exists()

    def produced(self) -> int:
        """Records that the outbox ever committed."""
        return _asked(self.outbox, "SELECT value FROM meta WHERE key = 'next_seq'") - 1

    def waiting(self) -> int:
        """Records that are not acknowledged."""
        return _asked(self.outbox, "SELECT count(*) FROM records")


def measure(folder: Path, seconds: int) -> list[Figure]:
    """All figures. RuntimeError when a record got lost, BrokerError when there is no broker."""
    figures: list[Figure] = []
    with nats(folder / "broker") as broker:
        gateway, signer = Gateway(folder / "gateway", broker.port), Signer.make(folder / "signing-key.pem")
        try:
            gateway.say_expected(signer)
            figures += _living(folder / "living", broker, signer, seconds)
            figures += _draining(folder / "draining", broker, signer, gateway)
        finally:
            gateway.close()
    return figures


def _living(folder: Path, broker: Broker, signer: Signer, seconds: int) -> list[Figure]:
    """A busy place for so long: what the agent takes of the Pi, and what it sends."""
    way = Counted(broker.port)
    with Desk(folder, way.port, signer) as desk:
        _wait(lambda: desk.outbox.exists() and desk.produced() > TRAPS and not desk.waiting() and desk.is_cared_for(), desk)
        desk.live(0)
        time.sleep(3)  # every tag has entered: said once, not for ever
        before, produced, passed = Process.of(desk.pid), desk.produced(), way.bytes
        begun = time.monotonic()
        for second in range(1, seconds):
            time.sleep(max(begun + second - time.monotonic(), 0))
            desk.live(second)
        time.sleep(3)
        after, records, passed = Process.of(desk.pid), desk.produced() - produced, way.bytes - passed
        took_s = time.monotonic() - begun
        _wait(lambda: not desk.waiting(), desk)
    way.close()
    plain, plain_bytes = _plain(broker, records, records / took_s)
    per = 1000 / records
    peer = "paho loop, same records"
    rate = f"at {records / took_s:.1f} records/s"
    return [
        Figure("memory (RSS)", "MiB", [after.rss_mib], peer, [plain["rss_mib"]], less_is_better=True),
        Figure("memory (PSS)", "MiB", [after.pss_mib], less_is_better=True),
        Figure(f"CPU a 1,000 records {rate}", "s", [(after.cpu_s - before.cpu_s) * per], peer,
               [plain["cpu_s"] * 1000 / plain["records"]], less_is_better=True),
        Figure("CPU, share of one core", "%", [(after.cpu_s - before.cpu_s) / took_s * 100], less_is_better=True),
        Figure(f"written to disk a record {rate}", "B", [(after.written - before.written) / records], less_is_better=True),
        Figure(f"on the wire a record {rate}", "B", [passed / records], peer, [plain_bytes / plain["records"]],
               less_is_better=True),
    ]  # fmt: skip


def _plain(broker: Broker, records: int, per_second: float) -> tuple[dict[str, Any], int]:
    """The same number of like records, at ten times the rate so that it does not take as long."""
    way = Counted(broker.port)
    rows = (
        {"time": "2026-06-03T06:12:00.000Z", "node": NODE, "device": "counter", "metric": "count_in", "value": number}
        for number in range(records)
    )
    argv = [sys.executable, "-m", "simulators.bench.edge_plain", "127.0.0.1", str(way.port), str(per_second * 10)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=120, check=True)
    way.close()
    return json.loads(done.stdout), way.bytes


def _draining(folder: Path, broker: Broker, signer: Signer, gateway: Gateway) -> list[Figure]:
    """A day's backlog drains; meanwhile traps move, and each is timed until the gateway has it."""
    gateway.arrived.clear()
    moved: dict[tuple[str, str], list[float]] = {}
    with Desk(folder, broker.port, signer, ballast=BACKLOG) as desk:
        begun = time.monotonic()
        _wait(lambda: any(device.startswith("trap-") for device, _ in gateway.arrived) or desk.waiting() < BACKLOG, desk)
        drain_from, drained_s, moves = time.monotonic(), None, 0
        while drained_s is None or moves < TRAPS * 4:
            trap = moves % TRAPS
            moved.setdefault((f"trap-{trap}", desk.move_trap(trap)), []).append(time.monotonic())
            moves += 1
            if drained_s is None and desk.waiting() < 50:
                drained_s = time.monotonic() - drain_from
            if moves >= TRAPS * 5:
                break
            time.sleep(0.15)
        _wait(lambda: all(len(gateway.arrived.get(key, [])) >= len(at) for key, at in moved.items()), desk)
        drained_s = drained_s or time.monotonic() - drain_from
    took_ms = []
    for key, at in moved.items():
        arrived = gateway.arrived[key]
        took_ms += [(there - then) * 1000 for then, there in zip(at, arrived[-len(at) :], strict=True)]
    took_ms.sort()
    note = f"while {BACKLOG} records drain"
    return [
        Figure(f"pin to durable p50 {note}", "ms", [took_ms[len(took_ms) // 2]], less_is_better=True),
        Figure(f"pin to durable p99 of {len(took_ms)} {note}", "ms", [took_ms[int(len(took_ms) * 0.99)]], less_is_better=True),
        Figure("a day's backlog drains in", "s", [drained_s], less_is_better=True),
        Figure("from start to the first record there", "s", [drain_from - begun], less_is_better=True),
    ]


def theengs(folder: Path, broker: Broker, say: Console) -> list[Figure]:
    """TheengsGateway (PyPI), which does one of our four kinds: its memory, as far as it comes. Empty without it."""
    folder = folder.absolute()
    python = folder / "bin" / "python"
    try:
        if not python.exists():
            venv.create(folder, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "TheengsGateway"], check=True, capture_output=True, timeout=170
        )
    except (OSError, subprocess.SubprocessError) as error:
        say.print(f"TheengsGateway is left out: it can't be installed: {error}", markup=False)
        return []
    argv = [str(python), "-m", "TheengsGateway", "-H", "127.0.0.1", "-P", str(broker.port), "-Lt", "0"]
    most_kib, ended = 0, False
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder) as process:
        for _ in range(80):
            time.sleep(0.1)
            if ended := process.poll() is not None:
                break
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            most_kib = max(most_kib, int(_after(status, "VmRSS:"))) if "VmRSS:" in status else most_kib
        process.send_signal(signal.SIGKILL)
    if ended:
        say.print("TheengsGateway ended by itself (it wants a Bluetooth adapter); its memory is what it had until then")
    return [Figure("TheengsGateway's memory (RSS), idle", "MiB", [most_kib / 1024], less_is_better=True)]


def _fill(path: Path, count: int) -> None:
    """An outbox as after a day without a link, of a boot before this one."""
    outbox = Outbox(path, machine=machine_id(), boot="0" * 16)
    now_us = time.time_ns() // 1000
    day_us = 24 * 3600 * 1_000_000
    for start in range(0, count, 1000):
        ago_us = [day_us - (start + number) * (day_us // count) for number in range(1000)]
        at = [Instant(now_us - ago, day_us - ago) for ago in ago_us]
        outbox.put([Reading(one, f"counter-{number % 4}", "count_in", float(start)) for number, one in enumerate(at)], "sync")
    outbox.close()


def _asked(path: Path, query: str) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        row = db.execute(query).fetchone()
        return int(row[0]) if row else 0  # it is just being made


def _after(text: str, word: str) -> str:
    return text.split(word)[1].split(maxsplit=1)[0]


def _wait(condition: Any, desk: Desk) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            if condition():
                return
        except sqlite3.OperationalError:  # the outbox is just being made
            pass
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {_PATIENCE_S:g} s in vain; {desk.pid} logs:\n{desk.program.log_end()}")
        time.sleep(0.05)


def main(argv: list[str] | None = None) -> int:
    """0 when the memory's target was reached, 1 when it was missed or a measurement failed."""
    parser = argparse.ArgumentParser(prog="make bench-edge", description="Measures one agent with all four kinds of device.")
    parser.add_argument("--for", dest="seconds", type=int, default=60, help="Seconds that the busy place lives (60).")
    parser.add_argument("--no-theengs", action="store_true", help="Don't install TheengsGateway to compare with.")
    parser.add_argument("--out", type=Path, default=Path("build/bench-edge.json"), help="Where the figures go as JSON.")
    arguments = parser.parse_args(argv)
    progress = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="satomori-bench-edge-") as name:
        try:
            progress.print(f"a busy place for {arguments.seconds} s, then a day's backlog")
            figures = measure(Path(name), arguments.seconds)
            if not arguments.no_theengs:
                with nats(Path(name) / "other") as broker:
                    figures += theengs(Path("build/theengs"), broker, progress)
        except (BrokerError, RuntimeError, OSError, subprocess.SubprocessError) as error:
            progress.print(f"bench-edge: {error}", markup=False)
            return 1
    missed = (figures[0].value or 0) > RSS_MIB
    note = (
        f"{TRAPS} traps, a people counter, {TAGS} tags, a camera; simulated pins cost some of the CPU. "
        f"Memory's target is {RSS_MIB} MiB: {'missed' if missed else 'reached'}."
    )
    print_table(figures, f"{machine(())}\n{note}", progress)
    write_json(figures, arguments.out)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
