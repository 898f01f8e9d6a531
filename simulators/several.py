"""A gateway in several real processes, kept up by a supervisor as a machine's would; and the load it is under.

Its state is in a PostgreSQL that somebody else runs. What went wrong is said in words, for `soak` and for tests.
"""

import json
import multiprocessing
import os
import random
import signal
import socket
import sqlite3
import sys
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from edge.contract.ranges import Ranges
from edge.contract.topics import partition_of
from gateway.state.database import _TOWN
from simulators.fleet import READINGS, Fleet, FleetNode, FleetReport, Said
from simulators.phone import Phone
from simulators.ports import free_port

LEASE_S = 4
TOKEN = "a" * 32
PATIENCE_S = 60
"""A machine with more to do than this takes its time; nobody waits longer than it takes."""

# Each process is forked from one that has read all the code: to read it anew takes each of them seconds.
_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(["gateway.cli", "simulators.several"])


def _process(argv: list[str], log: Path) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from gateway.cli import main

    sys.exit(main(argv))


def process_name(pid: int) -> str:
    """As gateway.state.database has it."""
    return f"{socket.gethostname()}-{pid}"


def until(condition: Callable[[], object], what: str, patience_s: float | None = None) -> None:
    """Returns once it holds. TimeoutError, after PATIENCE_S where nothing else is said."""
    patience_s = PATIENCE_S if patience_s is None else patience_s
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"in {patience_s:g} s it never came true that {what}")
        threading.Event().wait(0.1)


class Several:
    """Processes by their names (`ingest-1`). Whichever ends without being asked to is started again."""

    def __init__(self, folder: Path, database: str, broker: str, phone: Phone, more: str = "") -> None:
        """`database`: the URL of an empty one in PostgreSQL. `more`: of the configuration."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.database, self._number = folder, database, Counter[str]()
        self.port = free_port()
        self.series = folder / "series.db"
        (folder / "tokens").touch(0o600)
        (folder / "tokens").write_text(f"desk operator,officer {TOKEN}\n")
        contacts = "\n".join(f'contact.hunter-{at} = {{ type = "webhook", url = "{phone.url}" }}' for at in range(8))
        self._ports: dict[str, int] = {}
        self._settings = f"""
state = {{ url = "{self.database}", lease = "{LEASE_S}s" }}
store = {{ type = "sqlite", path = "{self.series}" }}
broker = {{ url = "{broker}", backoff_cap_s = 1.0 }}
api = {{ port = {self.port}, tokens_file = "{folder / "tokens"}" }}
media = {{ folder = "{folder / "media"}" }}
keep = {{ erasures_file = "{folder / "erasures"}" }}
route = [{{ steps = [{{ to = "hunter-0" }}, {{ after = "30s", to = "hunter-1" }}] }}]
rule.sprung = {{ type = "occurrence", event = "trap_sprung", until = "trap_reset", severity = "critical" }}
{contacts}
{more}
"""
        self._lock = threading.Lock()
        self._kept: dict[str, Any] = {}
        self.ended: list[tuple[str, int]] = []
        """(name, exit code) of each that ended without being asked to."""
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="supervisor")

    def __enter__(self) -> "Several":
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._keeper.join()
        for process in self._kept.values():
            os.kill(process.pid, signal.SIGCONT)
            process.terminate()
        for process in self._kept.values():
            process.join(20)
            if process.exitcode is None:
                process.kill()
                process.join()

    def note_writers(self) -> None:
        """From now on `wrote` knows which process has committed what."""
        self.ask("CREATE TABLE wrote (what text NOT NULL, who text NOT NULL)")
        self.ask(
            """
            CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO wrote VALUES (TG_TABLE_NAME, current_setting('application_name'));
                RETURN NULL;
            END $$
            """
        )
        for table in ("events", "ranges", "latest", "handed", "alerts", "pages", "notifications", "rule_states"):
            self.ask(
                f"CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION note()"
            )

    def written_by(self, who: str, what: str = "%") -> int:
        """How many statements of this process were committed, to a table of this name."""
        return self.count("wrote WHERE who = %(who)s AND what LIKE %(what)s", who=who, what=what)

    def start(self, role: str, number: int = 1) -> list[str]:
        """So many more with this role."""
        names = []
        for _ in range(number):
            self._number[role] += 1
            names.append(f"{role}-{self._number[role]}")
            with self._lock:
                self._kept[names[-1]] = self._begun(names[-1])
        return names

    def stop(self, name: str) -> None:
        """As a supervisor that is asked to: it may finish what it does."""
        with self._lock:
            process = self._kept.pop(name)
        process.terminate()
        process.join(30)
        if process.exitcode != 0:
            raise RuntimeError(f"{name} ended with {process.exitcode}: {self.log(name)[-3000:]}")

    def pid(self, name: str) -> int:
        """Of the process that has the name now."""
        with self._lock:
            return int(self._kept[name].pid)

    def kill(self, name: str) -> None:
        """-9; the supervisor starts it anew."""
        os.kill(self.pid(name), signal.SIGKILL)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def ask(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """What the state database answers; `%(name)s` stands for a value."""
        with closing(psycopg.connect(self.database, autocommit=True)) as connection:
            done = connection.execute(sql.encode(), values or None)
            return done.fetchall() if done.description else []

    @contextmanager
    def standing_still(self) -> Iterator[Callable[[], set[str]]]:
        """While the block runs nobody's transaction may write, but for what has one owner. Gives who waits, by process name."""
        with closing(psycopg.connect(self.database, autocommit=True)) as connection:
            connection.execute(_TOWN.text.replace("_xact", ""))
            yield lambda: {
                name
                for (name,) in self.ask(
                    "SELECT application_name FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = 'advisory'"
                )
            }

    def count(self, what: str, /, **values: Any) -> int:
        return int(self.ask(f"SELECT count(*) FROM {what}", **values)[0][0])  # noqa: S608 - a test's own words

    def points(self) -> int:
        """In the series store."""
        with closing(sqlite3.connect(self.series)) as connection:
            return int(connection.execute("SELECT count(*) FROM readings").fetchone()[0])

    def held(self) -> dict[str, int]:
        """How many partitions each process holds, by the name that it has in the database."""
        rows = self.ask(
            "SELECT w.name, count(*) FROM leases l JOIN workers w ON w.id = l.holder WHERE l.name <> 'rules' GROUP BY w.name"
        )
        return {name: int(number) for name, number in rows}

    def shared(self) -> None:
        """Waits until all ingest processes hear the town, in equal shares."""

        def is_so() -> bool:
            with self._lock:
                here = {process_name(process.pid) for name, process in self._kept.items() if name.startswith("ingest")}
            held = self.held()
            heard = self.count("leases WHERE name <> 'rules' AND holder IS NOT NULL AND listening_since_us IS NOT NULL")
            return held.keys() == here and max(held.values()) <= -(-64 // len(here)) and heard == 64

        until(is_so, "the ingest processes share the town")

    def leader(self) -> str | None:
        """The name of the process that judges."""
        rows = self.ask("SELECT w.name FROM leases l JOIN workers w ON w.id = l.holder WHERE l.name = 'rules'")
        here = {process_name(self.pid(name)): name for name in list(self._kept) if name.startswith("rules")}
        return here.get(rows[0][0]) if rows else None

    def get(self, path: str, body: dict[str, Any] | None = None, of: str = "api-1") -> Any:
        """Of the API; with a body, POST."""
        with urllib.request.urlopen(self.request(path, body, of), timeout=20) as answer:  # noqa: S310 - our own address
            return json.load(answer)

    def request(self, path: str, body: dict[str, Any] | None = None, of: str = "api-1") -> urllib.request.Request:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.Request(f"http://127.0.0.1:{self._port_of(of)}/api/v1/{path}", data, headers)

    def _port_of(self, name: str) -> int:
        """Each process that answers has one of its own."""
        return self._ports.setdefault(name, free_port()) if name.startswith("api") and name != "api-1" else self.port

    def _begun(self, name: str) -> Any:
        config = self.folder / f"{name}.toml"
        config.write_text(self._settings.replace(f"port = {self.port}", f"port = {self._port_of(name)}"))
        argv = ["run", str(config), "--role", name.partition("-")[0]]
        process = _forking.Process(target=_process, args=(argv, self.folder / f"{name}.log"), name=name, daemon=True)
        process.start()
        return process

    def _keep(self) -> None:
        while not self._closing.wait(0.2):
            with self._lock:
                for name, process in list(self._kept.items()):
                    if (code := process.exitcode) is not None:
                        self.ended.append((name, code))
                        self._kept[name] = self._begun(name)


class TrapNode(FleetNode):
    """All its events are of its trap; it knows what it has said."""

    def __init__(self, name: str, rng: random.Random) -> None:
        super().__init__(name, rng)
        self.springs: list[tuple[int, str]] = []
        """(seq, event), in order."""
        self.read = 0

    def readings(self, now_us: int, count: int = READINGS) -> Said:
        self.read += count
        return super().readings(now_us, count)

    def event(self, now_us: int, *, alarm: bool = True) -> Said:
        said = super().event(now_us, alarm=alarm)
        self.springs.append((said.high, "trap_sprung" if self._sprung else "trap_reset"))
        return said


class Load:
    """Nodes at work, in a thread. What they said is known once the block ends, when all of it was acknowledged."""

    def __init__(self, broker: str, *, nodes: int = 40, rate: float = 60, seed: int) -> None:
        self.nodes = [TrapNode(f"fleet-{seed}-{at:04d}", random.Random(f"{seed}/{at}")) for at in range(nodes)]
        self._fleet = Fleet(broker, nodes=self.nodes, rate=rate, events=0.1, seed=seed)
        self.report = FleetReport()
        self._enough = threading.Event()

    @contextmanager
    def running(self) -> Iterator["Load"]:
        def run() -> None:
            self.report = self._fleet.run(86_400, drain_s=PATIENCE_S, enough=self._enough.is_set)

        thread = threading.Thread(target=run, name="fleet")
        thread.start()
        try:
            yield self
        finally:
            self._enough.set()
            thread.join()

    def faults(self, town: Several, points_before: int, moved: set[int] | None = None) -> list[str]:
        """What is wrong, once all was judged: each record is there once, each alert as the last event of its trap says; and no
        event stands in front of an earlier one, where the node's partition has not `moved` and nothing was sent again.
        """
        report = self.report
        found = [f"{number} records {what}" for what in ("lost", "rejected") if (number := getattr(report, what))]
        read, stored_points = sum(node.read for node in self.nodes), town.points() - points_before
        if stored_points != read:
            found.append(f"{stored_points} readings stored of {read}")
        names = [node.name for node in self.nodes]
        stored = defaultdict[str, list[tuple[int, str]]](list)
        for name, seq, kind in town.ask(
            "SELECT node, seq, type FROM events WHERE node = ANY(%(names)s) ORDER BY id", names=names
        ):
            stored[name].append((seq, kind))
        ranges = dict(town.ask("SELECT node, body FROM ranges WHERE node = ANY(%(names)s)", names=names))
        for node in self.nodes:
            if sorted(stored[node.name]) != node.springs:
                found.append(f"{node.name}: an event is lost, or there twice")
            if Ranges.parse(ranges.get(node.name, "")).upto != max(node._next - 1, 0):
                found.append(f"{node.name}: what is known of it ends early")
            stayed = moved is not None and not report.resent and partition_of(node.name) not in moved
            if stayed and stored[node.name] != node.springs:
                found.append(f"{node.name}: its events stand in another order")
        in_order = [node for node in self.nodes if stored[node.name] == node.springs]

        def misjudged() -> list[str]:
            rows = town.ask(
                "SELECT node, count(*), count(*) FILTER (WHERE state <> 'resolved') FROM alerts WHERE node = ANY(%(names)s)"
                " GROUP BY node",
                names=[node.name for node in in_order],
            )
            told = {name: (alerts, still_open) for name, alerts, still_open in rows}
            wrong = []
            for node in in_order:
                kinds = [kind for _, kind in node.springs]
                wanted = (kinds.count("trap_sprung"), int(kinds[-1:] == ["trap_sprung"]))
                if (found := told.get(node.name, (0, 0))) != wanted:
                    wrong.append(f"{node.name}: (alerts, open ones) are {found}, of its springs {wanted}")
            return wrong

        with suppress(TimeoutError):  # what it waited for is said then
            until(lambda: not misjudged(), "each spring has its alert, which is open where nobody has reset the trap")
        found += misjudged()
        return found


def paged_twice(town: Several, phone: Phone, repeats: int = 0) -> list[str]:
    """Who was told twice: there is one message a step, alert and contact, in the ledger and on the phone. `repeats`: so many may
    have been on their way to it when who sent them was killed; they come again under their own id.
    """
    twice = """
        SELECT alert, contact, kind FROM notifications WHERE kind = 'alert' GROUP BY alert, contact, kind HAVING count(*) > 1
    """
    found = [f"{contact} has two messages of alert {alert}" for alert, contact, _ in town.ask(twice)]
    again = sum(times - 1 for times in phone.times().values())
    return found + ([f"{again} messages came again, of at most {repeats}"] if again > repeats else [])
