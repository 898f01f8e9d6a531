"""A town on a desk: broker, gateway and edges as real processes, the phone, and the world played onto the seams.

Nothing here stands in for code of edge or gateway: they run as `satomori-gateway run` and `satomori-edge run` with configuration
files like any other. What is simulated lies below: pins, serial ports, a camera's folder, the phone's endpoint.

With a broker that has an authority, all of it speaks TLS, and every node claims its identity by a code, as in the field.
"""

import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from zlib import crc32

from edge import identity
from edge.clock import boot_id, machine_id
from edge.outbox import Outbox
from gateway.nodes import claims, desired
from gateway.nodes.authority import SIGNING_KEY
from gateway.nodes.signing import Signer
from gateway.state import open_state
from gateway.state.tables import tags, watched
from gateway.state.upsert import upsert
from simulators.broker import Broker
from simulators.hands import Hands
from simulators.hardware import PinsFile, SerialPort, advertisement_line, counter_frame, picture, save_picture
from simulators.phone import Phone
from simulators.phones import Phones
from simulators.ports import free_port
from simulators.world import SimDevice, SimNode, World

NAMES = ("ハナ", "トメ", "シゲ", "キヨ")
"""What those who carry a tag are called in the invented town."""

RULES: dict[str, dict[str, Any]] = {
    "trap-sprung": {"type": "occurrence", "event": "trap_sprung", "until": "trap_reset", "severity": "critical"},
    "camera-picture": {"type": "occurrence", "event": "media_captured", "severity": "info"},
    "tag-away": {
        "type": "threshold",
        "metric": "tags_near",
        "below": 2,
        "for": "6s",
        "kind": "home",
        "severity": "critical",
    },
    "crowd": {"type": "rate", "metric": "count_in", "per": "60s", "window": "10s", "above": 60, "severity": "warning"},
    "silent": {"type": "absence", "of": "heartbeat", "for": "20s", "kind": "node", "severity": "warning"},
}
"""The demo's rules: times are short, because the town's day passes in minutes."""

KINDS = {"reed_trap": "trap", "trail_camera": "camera", "ble_tags": "tags", "people_counter": "flow", "node_health": "node"}
"""The deployment's kind of each kind of device."""

_LEDGER = """
CREATE TABLE IF NOT EXISTS sim_ledger (seq INTEGER PRIMARY KEY, utc_us INTEGER, mono_us INTEGER, body TEXT);
CREATE TRIGGER IF NOT EXISTS sim_ledger_put AFTER INSERT ON records
BEGIN INSERT INTO sim_ledger VALUES (new.seq, new.utc_us, new.mono_us, new.body); END;
"""
"""What a node produced, noted by the database itself at the moment the outbox commits it; see simulators.audit."""


class Program:
    """A child process of ours, with its log: started, stopped as a service would be, or killed."""

    def __init__(self, argv: Sequence[str], log: Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
        """`cwd`: where it works, if not where we do."""
        self.argv, self.log, self._env, self._cwd = list(argv), log, {**os.environ, **(env or {})}, cwd
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Starts it; returns at once."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,  # Ctrl-C is for who runs the town: it ends this one in its turn
            )

    def end(self, how: signal.Signals = signal.SIGTERM, timeout_s: float = 15) -> None:
        """Ends it by a signal and waits; kills it when it takes too long."""
        if self.process is None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """As a power cut would."""
        self.end(signal.SIGKILL)

    def log_end(self) -> str:
        """The end of what it said, for error messages."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:] if self.log.exists() else "(no log)"


class Edge(NamedTuple):
    """One simulated node: its process and the far ends of its devices."""

    node: SimNode
    folder: Path
    config: Path
    """edge.toml; with an authority it is there once the node is claimed."""
    devices: dict[str, dict[str, Any]]
    program: Program
    pins: PinsFile
    pin_of: dict[str, int]
    ports: dict[str, SerialPort]
    cards: dict[str, Path]

    @property
    def outbox_path(self) -> Path:
        """The outbox's file."""
        return self.folder / "state" / "outbox.db"


class Town:
    """All of it, in one folder. A context manager; what is inside may be stopped, killed and started again."""

    def __init__(  # noqa: PLR0913 - what a town is made of
        self,
        folder: Path,
        broker: Broker,
        phone: Phone,
        world: World,
        *,
        nodes: int | None = None,
        rules: dict[str, dict[str, Any]] | None = None,
        store: dict[str, Any] | None = None,
        api_port: int = 0,
        phones: Phones | None = None,
        sections: dict[str, Any] | None = None,
        keepers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Writes every configuration; starts nothing. `phone` is open already; `nodes` takes only the first so many.

        `phones` are open already too, and `sections` is what gateway.toml says of the people behind them, and besides. Then
        nobody is watched over until the desk enters them; without, the residents' tags are known from the start.
        `keepers`: the groups that look after the devices deployed as this kind.
        """
        self.folder, self.broker, self.phone, self.world = folder, broker, phone, world
        folder.mkdir(parents=True, exist_ok=True)
        self.token, self._node_token = secrets.token_hex(16), secrets.token_hex(16)
        self.api_port = api_port or free_port()
        self.node_url = f"https://127.0.0.1:{free_port()}"
        self._claimed = False
        self.url = f"http://127.0.0.1:{self.api_port}"
        self._phones, self._sections, self._keepers = phones, sections, keepers or {}
        self._write_gateway(RULES if rules is None else rules, world.nodes()[:nodes], store)
        self.gateway = Program(
            [str(beside_python("satomori-gateway")), "run", str(folder / "gateway.toml")], folder / "gateway.log"
        )
        self.edges = [self._make_edge(node) for node in world.nodes()[:nodes]]
        self._skipped: dict[tuple[str, str], tuple[int, int]] = {}
        self._sprung: dict[tuple[str, str], bool] = {}
        self.accounts: dict[str, str] = {}
        """Accounts by name, once the desk has made them."""
        self.hands: Hands | None = None
        """Of who sits at the desk, if anybody does."""
        self.switched = 0
        """How often a trap's switch was moved: what its events are compared with."""

    def __enter__(self) -> "Town":
        if self.broker.authority is not None and not self._claimed:
            run_once(self.folder / "gateway.toml", "authority", "init")
        if self._sections is None:
            self._enrol()
        try:
            self.broker.start()
            self.start_gateway()
            if self.broker.authority is not None and not self._claimed:
                for edge in self.edges:
                    self._claim(edge)
                self._claimed = True
            for edge in self.edges:
                edge.program.start()
        except BaseException:
            self.__exit__()  # nobody else would end what did start
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end_edges()
        self.gateway.end()
        self.broker.stop()
        for edge in self.edges:
            for port in edge.ports.values():
                port.unplug()

    def start_gateway(self, timeout_s: float = 60) -> None:
        """Starts the gateway and waits until its health answers. One that ends is noticed at once."""
        self.gateway.start()
        deadline = time.monotonic() + timeout_s
        while self.health() is None:
            if not self.gateway.running or time.monotonic() > deadline:
                raise RuntimeError(f"the gateway did not start; its log ends:\n{self.gateway.log_end()}")
            time.sleep(0.05)

    def _enrol(self) -> None:
        """The residents' tags, each with the receiver of its home: the gateway stores nothing of a tag that is nobody's."""
        state = open_state(f"sqlite:///{self.state_db}")
        try:
            with state.write() as connection:
                for number, (tag, home) in enumerate(self.world.residents()):
                    id_ = f"{number:016x}"
                    person = {"id": id_, "name": f"{NAMES[number % len(NAMES)]}さん", "family": f"family-{number + 1}",
                              "homes": json.dumps([f"{home}/tags"]), "created_us": 0, "created_by": "town"}  # fmt: skip
                    connection.execute(upsert(watched), person)
                    tagged = {"tag": tag.name, "watched": id_, "enrolled_us": 0, "enrolled_by": "town"}
                    connection.execute(upsert(tags), tagged)
        finally:
            state.close()

    def _claim(self, edge: Edge) -> None:
        """An operator makes a code for the node and says what it should run; the box proves the code and gets both."""
        assert self.broker.authority is not None
        now_us = time.time_ns() // 1000
        state = open_state(f"sqlite:///{self.state_db}")
        try:
            claim = claims.add(state, edge.node.name, 1, now_us, "simulators.town")
            signer = Signer.read(self.broker.authority / SIGNING_KEY)
            desired.ask(state, signer, edge.node.name, edge.devices, None, now_us, "simulators.town")
        finally:
            state.close()
        identity.claim(claim.code, self.node_url, edge.folder / "state")
        # Whoever tests a town pulls plugs all day long, and will not wait a minute for each.
        document = tomllib.loads(edge.config.read_text(encoding="utf-8"))
        document["broker"]["backoff_cap_s"] = 1.0
        edge.config.write_text(identity.toml(document), encoding="utf-8")

    def health(self) -> dict[str, Any] | None:
        """What the gateway says of itself; None while it does not answer."""
        try:
            return dict(self.get("/api/v1/health"))
        except OSError:
            return None

    def get(self, path: str) -> Any:
        """One GET with the operator's token, as JSON. A degraded gateway tells of its health with 503: that is returned too.

        ConnectionError, as of `post` and `put`, where it gives no answer: what to do about that.
        """
        request = urllib.request.Request(self.url + path, headers={"authorization": f"Bearer {self.token}"})  # noqa: S310 - our own
        try:
            return self._asked(request, 5)
        except urllib.error.HTTPError as error:
            if error.code == 503 and path == "/api/v1/health":
                return json.load(error)
            raise

    def post(self, path: str, body: Any) -> Any:
        """One POST below /api/v1 with the operator's token; its JSON. RuntimeError with the gateway's reason where it refuses."""
        return self._said("POST", path, json.dumps(body).encode())

    def put(self, path: str) -> Any:
        """One PUT of nothing, likewise."""
        return self._said("PUT", path, None)

    def _said(self, method: str, path: str, body: bytes | None) -> Any:
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        request = urllib.request.Request(f"{self.url}/api/v1{path}", body, headers, method=method)  # noqa: S310 - our own
        try:
            return self._asked(request, 10)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from error

    def _asked(self, request: urllib.request.Request, timeout_s: float) -> Any:
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310 - our own
                return json.load(response)
        except urllib.error.HTTPError:
            raise
        except (OSError, HTTPException) as error:  # it is not there, or went while it answered
            why = getattr(error, "reason", error)
            raise ConnectionError(
                f"the gateway at {self.url} gives no answer ({why}). Start it again: {' '.join(self.gateway.argv)}. "
                f"Its log: {self.gateway.log}"
            ) from error

    def answers(self) -> int:
        """How many answers of people the gateway has kept."""
        return _count(self.state_db, "answers")

    @property
    def state_db(self) -> Path:
        """The gateway's state database."""
        return self.folder / "gateway" / "state.db"

    @property
    def series_db(self) -> Path:
        """The gateway's series database, where the store is the embedded one."""
        return self.folder / "gateway" / "series.db"

    def settle(self, timeout_s: float = 30, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Waits until everything the edges have committed by now is acknowledged; they go on to make new records.

        `meanwhile` is called some times a second: a town in which time stands still is one that everybody has left.
        """
        produced = {edge.node.name: _count(edge.outbox_path, "sim_ledger") for edge in self.edges}
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if all(_oldest(edge.outbox_path) > produced[edge.node.name] for edge in self.edges):
                return
            meanwhile()
            time.sleep(0.1)

    def end_edges(self) -> None:
        """Ends all edges at once: one that goes on while nothing is played any more would say that everybody has left."""
        for edge in self.edges:
            if edge.program.process is not None:
                edge.program.process.terminate()
        for edge in self.edges:
            edge.program.end()

    def waiting(self) -> int:
        """Records that are committed at the edges and not yet acknowledged, counted in the outboxes' files."""
        return sum(_count(edge.outbox_path, "records") for edge in self.edges)

    def produced(self) -> int:
        """Records that the edges' outboxes ever committed."""
        return sum(_count(edge.outbox_path, "sim_ledger") for edge in self.edges)

    def play(self, before_us: int, now_us: int, *, tags_us: int | None = None) -> None:
        """Moves every seam from the world's time `before_us` to `now_us`. `tags_us`: tags are where they were then instead."""
        for edge in self.edges:
            if self.hands is not None:
                self.hands.power(edge.node.name, edge.program)
            for device in edge.node.devices:
                at_us = now_us if tags_us is None or device.kind != "ble_tags" else tags_us
                self.play_device(edge, device, before_us, at_us)

    def skip(self, before_us: int, now_us: int) -> None:
        """Jumps the town's time. Nothing of what happened between is played; counters have counted only who went meanwhile."""
        for edge in self.edges:
            for device in edge.node.devices:
                if device.kind == "people_counter":
                    key = (edge.node.name, device.name)
                    old, new = (self.world.counter_totals(*key, t_us) for t_us in (before_us, now_us))
                    came, went = self._skipped.get(key, (0, 0))
                    said_in, said_out = old[0] - came, old[1] - went
                    said_out += max(0, (said_in - said_out) - (new[0] - new[1]))  # those who the world says are there no more
                    self._skipped[key] = (new[0] - said_in, new[1] - said_out)

    def play_device(self, edge: Edge, device: SimDevice, before_us: int, now_us: int) -> None:
        """The same for one device."""
        world, hands, node, name = self.world, self.hands, edge.node.name, device.name
        if device.kind == "reed_trap":
            sprung = world.trap_is_sprung(node, name, now_us)
            self.set_trap(edge, name, sprung=hands.trap(node, name, sprung=sprung) if hands else sprung)
        elif device.kind == "people_counter":
            skipped, more = self._skipped.get((node, name), (0, 0)), hands.counted(node, name) if hands else (0, 0)
            total_in, total_out = (
                a - b + c for a, b, c in zip(world.counter_totals(node, name, now_us), skipped, more, strict=True)
            )
            edge.ports[name].write(counter_frame(total_in, total_out, 3700))
        elif device.kind == "ble_tags":
            near = world.tags_near(node, name, now_us)
            lines = [advertisement_line(tag, rssi) for tag, rssi in (hands.tags(node, near) if hands else near)]
            edge.ports[name].write(b"".join(lines))
        else:
            shots = world.pictures_between(node, name, before_us, now_us)
            shots += [(now_us, what) for what in (hands.pictures(node, name) if hands else ())]
            for at_us, what in shots:
                save_picture(edge.cards[name], at_us, picture(at_us, what, world.seed))

    def set_trap(self, edge: Edge, device: str, *, sprung: bool) -> None:
        """Springs a trap or sets it again: its switch closes, or opens. Nothing happens when it is so already."""
        if self._sprung.get((edge.node.name, device), False) != sprung:
            self._sprung[edge.node.name, device] = sprung
            (edge.pins.low if sprung else edge.pins.high)(edge.pin_of[device])
            self.switched += 1

    # Configuration

    def _write_gateway(self, rules: dict[str, dict[str, Any]], nodes: list[SimNode], store: dict[str, Any] | None) -> None:
        home = self.folder / "gateway"
        home.mkdir(exist_ok=True)
        tokens = home / "tokens"
        tokens.touch(mode=0o600)
        tokens.write_text(f"desk operator,officer {self.token}\nedges node {self._node_token}\n", encoding="utf-8")
        homes = {home for _, home in self.world.residents()}
        deployments = [
            {"node": node.name, "device": device.name, "place": device.place,
             "kind": "home" if device.kind == "ble_tags" and node.name in homes else KINDS[device.kind],
             "label": device.label.removeprefix(device.place).strip(),
             **({"groups": list(self._keepers[KINDS[device.kind]])} if KINDS[device.kind] in self._keepers else {}),
             **({"at": _position(device.place, device.label)} if self._sections else {})}
            for node in nodes for device in node.devices
        ] + [
            {"node": node.name, "device": "node", "kind": "node", "place": node.devices[0].place, "label": "親機"}
            for node in nodes
        ]  # fmt: skip
        write_toml(
            self.folder / "gateway.toml",
            {
                "broker": {"url": self.broker.url, "backoff_cap_s": 1.0, **self._gateway_shows()},
                "state": {"url": f"sqlite:///{self.state_db}"},
                "store": store or {"type": "sqlite", "path": str(self.series_db)},
                "api": {"port": self.api_port, "tokens_file": str(tokens), "stale_after_s": 30.0},
                "media": {"folder": str(home / "media")},
                "deployment": deployments,
                "rule": rules,
                "contact": {"phone": {"type": "webhook", "url": self.phone.url, "timeout_s": 5.0}},
                "route": [{"to": ["phone"]}],
                **self._people_sections(),
                **self._nodes_section(),
            },
        )

    def _people_sections(self) -> dict[str, Any]:
        if self._phones is None or self._sections is None:
            return {}
        folder = self.folder / "gateway"
        said = {"public_url": self.url, "folder": str(folder / "people"), **self._sections["people"]}
        return {**self._sections, "people": said, "channel": self._phones.channel_settings(folder / "channels")}

    def _gateway_shows(self) -> dict[str, str]:
        """What the gateway shows to the broker."""
        folder = self.broker.authority
        if folder is None:
            return {}
        return {"ca_file": str(folder / "ca.pem"), "certificate_file": str(folder / "gateway.pem"),
                "key_file": str(folder / "gateway-key.pem")}  # fmt: skip

    def _nodes_section(self) -> dict[str, Any]:
        if self.broker.authority is None:
            return {}
        return {
            "nodes": {
                "folder": str(self.broker.authority),
                "host": "127.0.0.1",
                "port": urlsplit(self.node_url).port,
                "public_url": self.node_url,
                "broker_url": self.broker.url,
                "server_names": ["127.0.0.1"],
                "broker_pid_file": str(self.broker.pid_file),
            }
        }

    def _make_edge(self, node: SimNode) -> Edge:
        folder = self.folder / "edges" / node.name
        (folder / "state").mkdir(parents=True, exist_ok=True)
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(self._node_token, encoding="utf-8")
        pins = PinsFile(folder / "pins")
        pins.path.touch()
        pin_of: dict[str, int] = {}
        ports: dict[str, SerialPort] = {}
        cards: dict[str, Path] = {}
        devices: dict[str, dict[str, Any]] = {"node": {"type": "node_health", "interval_s": 5.0}}
        for device in node.devices:
            settings: dict[str, Any] = {"type": device.kind, "heartbeat_s": 2.0}
            if device.kind == "reed_trap":
                settings["pin"] = pin_of[device.name] = 17 + len(pin_of)
                pins.high(pin_of[device.name])
            elif device.kind == "trail_camera":
                cards[device.name] = folder / device.name
                cards[device.name].mkdir(exist_ok=True)
                settings |= {"folder": str(cards[device.name]), "scan_s": 0.3}
            else:
                ports[device.name] = SerialPort(folder / device.name)
                settings["port"] = str(ports[device.name].path)
            if device.kind == "ble_tags":
                settings |= {"ibeacon_uuids": [str(self.world.beacon_uuid)], "leave_after_s": 3.0, "summary_s": 10.0,
                             "eddystone_namespaces": [self.world.eddystone_namespace.hex()]}  # fmt: skip
            devices[device.name] = settings
        config = folder / "state" / "edge.toml"
        if self.broker.authority is None:
            write_toml(
                config,
                {
                    "node": {"name": node.name, "state": str(folder / "state")},
                    "broker": {"url": self.broker.url, "backoff_cap_s": 1.0},
                    "media": {"url": self.url, "token_file": str(token)},
                    "device": devices,
                },
            )
        add_ledger(folder / "state" / "outbox.db")
        program = Program([str(beside_python("satomori-edge")), "run", str(config)], folder / "edge.log", pins.environment)
        return Edge(node, folder, config, devices, program, pins, pin_of, ports, cards)


def add_ledger(outbox: Path) -> None:
    """Makes the outbox's file note by itself, in the commit of the outbox, whatever it is given."""
    Outbox(outbox, machine=machine_id(), boot=boot_id()).close()
    with closing(sqlite3.connect(outbox)) as db:
        db.executescript(_LEDGER)


def _position(place: str, device: str) -> list[float]:
    """Somewhere in the town, the same for the same place; what stands there stands some 100 m apart."""
    number, near = crc32(place.encode()), crc32(device.encode())
    north, east = number % 4096 + near % 128, number // 4096 % 4096 + near // 128 % 128
    return [round(36.08 + north / 1e5, 5), round(140.06 + east / 1e5, 5)]


def run_once(config: Path, *command: str) -> None:
    """A command of the gateway's. RuntimeError with what it says when it fails."""
    argv = [str(beside_python("satomori-gateway")), *command, str(config)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def write_toml(path: Path, document: dict[str, Any]) -> None:
    """Writes strings, numbers, booleans, lists and tables as TOML, each top-level key on a line."""
    path.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in document.items()), encoding="utf-8")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # JSON's strings, numbers and booleans are TOML's


def beside_python(name: str) -> Path:
    """A command of this installation: it stands beside the interpreter, whether the venv is activated or not."""
    return Path(sys.executable).parent / name


def ledger_count(edge: Edge) -> int:
    """How many records an edge ever committed."""
    return _count(edge.outbox_path, "sim_ledger")


def _count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        (count,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - our own table names
        return int(count)


def _oldest(path: Path) -> int:
    """The oldest seq that an outbox still holds; a number beyond all when it holds none."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        (oldest,) = db.execute("SELECT min(seq) FROM records").fetchone()
        return 2**53 if oldest is None else int(oldest)
