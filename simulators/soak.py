"""The soak: real processes killed with -9 again and again while the town lives, and everything counted at the end.

`make soak` runs hundreds of kills; `make test` runs a few, with the same code. What is killed, and when, comes from the seed.
"""

import argparse
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from edge.drivers.paced import BURST
from edge.outbox import Outbox
from simulators.audit import Audit, audit
from simulators.bench import servers
from simulators.broker import Broker, mosquitto, nats
from simulators.escalation_storm import escalation_storm
from simulators.fuzz import everything, fuzz
from simulators.phone import Phone
from simulators.ports import free_port
from simulators.town import Edge, Town, ledger_count
from simulators.world import OPENED_US, SECOND_US, World

RULES = {
    "trap-sprung": {"type": "occurrence", "event": "trap_sprung", "until": "trap_reset", "severity": "critical"},
}
HOLD_S = 0.8  # a trap is left as it is for longer than its debounce time
ROUND = ("gateway", "gateway", "broker", "broker-empty", "edge")
"""What is killed in as many kills, in an order that differs from round to round."""


class Outcome(NamedTuple):
    """What was done and what came of it."""

    killed: dict[str, int]
    springs: int
    pages: int
    repeats: int
    untold: int
    found: Audit

    @property
    def faults(self) -> list[str]:
        """What is wrong, in words; empty when everything is right."""
        checks = {
            f"{self.found.lost} records lost": self.found.lost,
            f"{self.found.duplicated} records stored twice": self.found.duplicated,
            f"{self.found.waiting} records still waiting": self.found.waiting,
            f"{self.found.quarantined} quarantined": self.found.quarantined,
            f"{self.found.sprung} springs known of {self.springs}": self.found.sprung - self.springs,
            f"{self.untold} springs that nobody was told of": self.untold,
            f"{self.pages} pages for {self.found.fired} alerts": self.pages - self.found.fired,
        }
        return [text for text, wrong in checks.items() if wrong]


def storm(home: Path, broker: Broker, *, kills: int, seed: int, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Springs and resets traps and plays the town while processes are killed and started again."""
    rng = random.Random(seed)
    killed: Counter[str] = Counter()
    springs = 0
    targets: list[str] = []
    with Phone(free_port()) as phone, Town(home, broker, phone, World(seed), nodes=4, rules=RULES) as town:
        traps = [(edge, device) for edge in town.edges for device in edge.pin_of]
        sprung = {(edge.node.name, device): False for edge, device in traps}
        moved: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        _wait_born(town)
        began = time.monotonic()
        before_us = OPENED_US
        for number in range(kills):
            dead: Edge | None = None
            targets = targets or rng.sample(ROUND, len(ROUND))
            target = targets.pop()
            # Something happens just before the kill and just after it: that is where records get lost.
            # Two traps: one moved twice within its debounce time has, rightly, not moved.
            # And none more often than a trap is believed (edge.drivers.reed_trap folds what is beyond).
            calm = [one for one in traps if sum(time.monotonic() - at < 70 for at in moved[one[0].node.name, one[1]]) < BURST - 1]
            chosen = rng.sample(calm, min(2, len(calm)))
            for moment in ("before", "after"):
                edge, device = chosen.pop() if chosen else (None, "")
                if edge is not None and edge is not dead:
                    moved[edge.node.name, device].append(time.monotonic())
                    key = (edge.node.name, device)
                    sprung[key] = not sprung[key]
                    springs += sprung[key]
                    town.set_trap(edge, device, sprung=sprung[key])
                now_us = OPENED_US + int((time.monotonic() - began) * 60 * SECOND_US)
                _play_counters(town, dead, before_us, now_us)
                before_us = now_us
                if moment == "before":
                    time.sleep(rng.uniform(0, 0.5))
                    dead = _kill(town, target, rng)
                    killed[target] += 1
                    say(f"kill {number + 1}/{kills}: {target}{' ' + dead.node.name if dead else ''}")
            time.sleep(HOLD_S + rng.uniform(0, 0.5))
            _bring_back(town, target, dead)
            time.sleep(HOLD_S)
        # A gateway that was killed finds its unacknowledged messages again, the edges' timeouts find the rest.
        town.settle(90)
        for edge in town.edges:
            edge.program.end()
        found = audit(town)
        _wait_pages(phone, found.fired)
        untold = _untold(town.state_db)
        times = phone.times()
    return Outcome(dict(killed), springs, len(times), sum(times.values()) - len(times), untold, found)


PRODUCER = """
import random, sys
from pathlib import Path
from edge.clock import Instant
from edge.contract.events import TrapSprung
from edge.outbox import Outbox
from edge.records import Happened, Reading
run, rng = int(sys.argv[2]), random.Random(int(sys.argv[2]))
outbox = Outbox(Path(sys.argv[1]), machine="pi-1", boot="00000000000000b0")
number = 0
while True:
    batch = []
    for _ in range(rng.choice((1, 3, 200))):
        number += 1
        at = Instant(1_780_434_720_000_000 + run * 10**9 + number * 5_000, number * 5_000)
        alarm = Happened(at, TrapSprung(device="trap-11", folded=run * 10**6 + number))
        batch.append(alarm if number % 7 == 0 else Reading(at, "trap-11", "heartbeat", run * 10**6 + number))
    first = outbox.next_seq
    outbox.put(batch, "sync")
    for row in outbox.rows(range(first, outbox.next_seq)):
        print(row.seq, row.body)
    print("committed", flush=True)
"""
"""Puts records for ever and says which are committed, into the outbox argv[1]; argv[2] makes them its own."""


class OutboxOutcome(NamedTuple):
    """What an outbox that was killed at work has kept."""

    kills: int
    reported: int
    missing: int
    """Reported as committed, and not there as it was."""
    twice: int
    """Numbers given out twice."""
    holes: int
    """Numbers given out before the end and not there."""

    @property
    def faults(self) -> list[str]:
        """What is wrong, in words."""
        return [f"{count} {what}" for what, count in zip(("missing", "twice", "holes"), self[2:], strict=True) if count]


def outbox_storm(path: Path, *, kills: int, seed: int) -> OutboxOutcome:
    """One outbox, written by process after process, each killed with -9 amid its work; then compared with what they reported."""
    rng = random.Random(seed)
    reported: dict[int, str] = {}
    twice = 0
    for run in range(kills):
        argv = [sys.executable, "-c", PRODUCER, str(path), str(run)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as child:
            assert child.stdout is not None
            fresh: list[str] = []
            commits, wanted = 0, rng.randrange(1, 40)
            for line in child.stdout:
                fresh.append(line)
                commits += line == "committed\n"
                if commits == wanted:
                    child.kill()  # amid what it does next; what it still said before comes through the pipe
                    wanted = -1
            if child.wait() != -signal.SIGKILL:
                raise RuntimeError(f"the writer ended by itself with {child.returncode}, after {''.join(fresh)[-200:]!r}")
        whole = "".join(fresh).rpartition("committed\n")[0]
        for line in whole.splitlines():
            if line != "committed":
                seq, _, body = line.partition(" ")
                twice += int(seq) in reported
                reported[int(seq)] = body
    with closing(Outbox(path, machine="pi-1", boot="00000000000000b0")) as outbox:
        kept = {row.seq: row.body for row in outbox.rows(range(1, outbox.next_seq))}
        holes = outbox.next_seq - 1 - len(kept)
    missing = sum(kept.get(seq) != body for seq, body in reported.items())
    return OutboxOutcome(kills, len(reported), missing, twice, holes)


class RolesOutcome(NamedTuple):
    """What became of a gateway in several processes."""

    killed: dict[str, int]
    """By role."""
    springs: int
    readings: int
    pages: int
    faults: list[str]


ROLES = ("ingest", "ingest", "rules", "rules", "deliver", "deliver", "api")


def roles_storm(home: Path, database: str, *, kills: int, seed: int, say: Callable[[str], None] = lambda _: None) -> RolesOutcome:
    """Kills the processes of a gateway over PostgreSQL, one after the other, under load. ImportError without psycopg."""
    from simulators.several import Load, Several, paged_twice, until  # psycopg is an extra, and only this needs it

    rng, killed = random.Random(seed), Counter[str]()
    with (
        nats(home / "broker", ack_wait_s=2) as broker,
        Phone(free_port()) as phone,
        Several(home / "town", database, broker.url, phone) as town,
    ):
        names = [town.start(role)[0] for role in ROLES]
        until(lambda: town.ask("SELECT 1 FROM pg_tables WHERE tablename = 'leases'"), "the schema is there")
        town.shared()
        with Load(broker.url, seed=seed).running() as load:
            until(lambda: any(node.springs for node in load.nodes), "something happens")
            for number in range(kills):
                name, before = rng.choice(names), len(town.ended)
                town.kill(name)
                killed[name.partition("-")[0]] += 1
                say(f"kill {number + 1}/{kills}: {name}")
                until(lambda before=before: len(town.ended) > before, "it was started anew")  # type: ignore[misc]
                time.sleep(rng.uniform(0, 6))  # sometimes before the others took over, sometimes after
            town.shared()
            until(town.leader, "somebody judges")
        until(lambda: not town.count("notifications WHERE state = 'queued'"), "everything is sent")
        # Who is killed while it sends has two on their way: to who is asked first, and to who is asked then.
        faults = load.faults(town, 0) + paged_twice(town, phone, repeats=2 * killed["deliver"])
        by_itself = [(name, code) for name, code in town.ended if code != -signal.SIGKILL]
        faults += [f"{name} ended by itself with {code}; its log: {town.log(name)[-2000:]}" for name, code in by_itself]
        springs = sum(kind == "trap_sprung" for node in load.nodes for _, kind in node.springs)
        return RolesOutcome(dict(killed), springs, sum(node.read for node in load.nodes), len(phone.times()), faults)


def _play_counters(town: Town, dead: Edge | None, before_us: int, now_us: int) -> None:
    for edge in town.edges:
        if edge is not dead and not edge.pin_of:
            for device in edge.node.devices:
                town.play_device(edge, device, before_us, now_us)


def _kill(town: Town, target: str, rng: random.Random) -> Edge | None:
    if target == "gateway":
        town.gateway.kill()
    elif target == "broker":
        town.broker.kill()
    elif target == "broker-empty":
        town.broker.wipe()
    else:
        edge = rng.choice(town.edges)
        edge.program.kill()
        return edge
    return None


def _bring_back(town: Town, target: str, dead: Edge | None) -> None:
    if target == "gateway":
        town.start_gateway()
    elif dead is not None:
        before = ledger_count(dead)
        dead.program.start()
        _wait_for(lambda: ledger_count(dead) > before, f"{dead.node.name} reads its devices again")
    else:
        town.broker.start()


def _wait_born(town: Town) -> None:
    """Until every device of every node has spoken."""
    expected = {(edge.node.name, device.name) for edge in town.edges for device in edge.node.devices}

    def all_there() -> bool:
        _play_counters(town, None, OPENED_US, OPENED_US)
        heard = {(row["node"], row["device"]) for row in town.get("/api/v1/devices")["devices"] if row["status"] == "ok"}
        return expected <= heard

    _wait_for(all_there, "every device of every node has spoken", 60)


def _wait_pages(phone: Phone, wanted: int) -> None:
    """Gives late pages their time; too few of them are a fault that is counted, not an error here."""
    with suppress(TimeoutError):
        phone.wait_for(lambda _: len(phone.times()) >= wanted, 30)


def _untold(state_db: Path) -> int:
    """Springs without an alert of their own, other than those whose reset was known before them."""
    with closing(sqlite3.connect(f"file:{state_db}?mode=ro", uri=True)) as db:
        (count,) = db.execute(
            """SELECT count(*) FROM events AS sprung WHERE type = 'trap_sprung'
               AND NOT EXISTS (SELECT 1 FROM alerts WHERE opening = sprung.epoch || ':' || sprung.seq AND fired_us NOT NULL)
               AND NOT EXISTS (SELECT 1 FROM events AS reset WHERE reset.type = 'trap_reset' AND reset.node = sprung.node
                   AND reset.device = sprung.device AND reset.time_us > sprung.time_us AND reset.id < sprung.id)"""
        ).fetchone()
        return int(count)


def _wait_for(condition: Callable[[], object], what: str, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"in {timeout_s:g} s it never came true that {what}")
        time.sleep(0.1)


def main(argv: list[str] | None = None) -> int:
    """`make soak`: prints what it killed and counted; 1 when something was lost, doubled or not told."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="How many kills per broker (default: 200).")
    parser.add_argument("--outbox", type=int, default=200, help="Kills of a process that only writes an outbox (default: 200).")
    parser.add_argument(
        "--escalations", type=int, default=0, help="Only kills of the gateway while it escalates, so many (default: 0)."
    )
    parser.add_argument(
        "--fuzz", type=int, default=0, help="Only questions to a whole gateway, so many of each kind an operation (default: 0)."
    )
    parser.add_argument(
        "--roles", type=int, default=0, help="Only kills of a gateway's several processes over PostgreSQL, so many (default: 0)."
    )
    parser.add_argument("--seed", type=int, default=1, help="Decides what is killed and when (default: 1).")
    parser.add_argument("--broker", choices=("nats", "mosquitto", "both"), default="both", help="Which broker (default: both).")
    parser.add_argument("--json", action="store_true", help="One JSON object a broker on stdout.")
    arguments = parser.parse_args(argv)
    home, stays = Path(tempfile.mkdtemp(prefix="satomori-soak-")), False
    try:
        return _soaked(arguments, home)
    except (OSError, RuntimeError) as error:  # a TimeoutError too: something did not come to be
        stays = True
        print(f"soak: {error}\nThe logs and databases of what ran are in {home}", file=sys.stderr)
        return 1
    finally:
        if not stays:
            shutil.rmtree(home, ignore_errors=True)


def _soaked(arguments: argparse.Namespace, home: Path) -> int:
    if arguments.escalations:
        return _escalations(home, arguments.escalations, arguments.seed, as_json=arguments.json)
    if arguments.fuzz:
        return _fuzzed(home, arguments.fuzz, arguments.seed, as_json=arguments.json)
    if arguments.roles:
        return _roles(home, arguments.roles, arguments.seed, as_json=arguments.json)
    bad = False
    if arguments.outbox:
        kept = outbox_storm(home / "outbox.db", kills=arguments.outbox, seed=arguments.seed)
        bad = bool(kept.faults)
        if arguments.json:
            print(json.dumps({"outbox": kept._asdict(), "faults": kept.faults}))
        else:
            print(_folded(f"outbox: {_words(kept._asdict())}"))
            print("  " + ("; ".join(kept.faults) or "nothing lost, no number twice"))
    for name in ("nats", "mosquitto") if arguments.broker == "both" else (arguments.broker,):
        there = home / name
        there.mkdir()
        authority = there / "authority"
        broker = (
            nats(there / "broker", authority=authority)
            if name == "nats"
            else mosquitto(there / "broker", save_every=0, authority=authority)
        )
        outcome = storm(
            there / "town", broker, kills=arguments.kills, seed=arguments.seed, say=lambda text: print(text, file=sys.stderr)
        )
        bad = bad or bool(outcome.faults)
        line = {"broker": name, **outcome._asdict(), "found": outcome.found._asdict(), "faults": outcome.faults}
        if arguments.json:
            print(json.dumps(line, ensure_ascii=False))
        else:
            print(_folded(f"{name}: killed: {_words(outcome.killed)}"))
            print(f"  {outcome.springs} springs, {outcome.pages} pages, {outcome.repeats} repeats under the same id")
            print(_folded(f"  records: {_words(outcome.found._asdict())}"))
            print("  " + ("; ".join(outcome.faults) or "nothing lost, nothing doubled, everybody told once"))
    return 1 if bad else 0


def _escalations(home: Path, kills: int, seed: int, *, as_json: bool) -> int:
    """The storm of escalations alone: 1 when somebody was left untold, or woken twice."""
    outcome = escalation_storm(
        home / "town", nats(home / "broker"), kills=kills, seed=seed, say=lambda text: print(text, file=sys.stderr)
    )
    if as_json:
        print(json.dumps(outcome._asdict(), ensure_ascii=False))
    else:
        print(_folded(f"escalations: {outcome.kills} kills, {outcome.springs} springs, {outcome.answers} answers"))
        print(_folded(f"  messages: {_words(outcome.messages)}; pages ended: {_words(outcome.ended)}"))
        print(_folded(f"  possibly twice: {outcome.possibly_twice}; got more than once: {_words(outcome.twice)}"))
        print("  " + ("\n  ".join(outcome.faults) or "nobody left untold, nobody woken twice, no step skipped or repeated"))
    return 1 if outcome.faults else 0


def _roles(home: Path, kills: int, seed: int, *, as_json: bool) -> int:
    """The storm of several processes alone: 1 when something was lost or doubled."""
    try:
        with servers.postgresql() as database:
            outcome = roles_storm(home, database, kills=kills, seed=seed, say=lambda text: print(text, file=sys.stderr))
    except ImportError as error:
        print(f"{error.name} is not installed: run `make test` once, which installs it", file=sys.stderr)
        return 1
    except servers.Lacking as error:
        print(error, file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(outcome._asdict(), ensure_ascii=False))
    else:
        print(_folded(f"several processes: killed: {_words(outcome.killed)}"))
        print(f"  {outcome.readings} readings, {outcome.springs} springs, {outcome.pages} messages")
        print("  " + ("\n  ".join(outcome.faults) or "nothing lost, nothing doubled, everybody told once"))
    return 1 if outcome.faults else 0


def _fuzzed(home: Path, examples: int, seed: int, *, as_json: bool) -> int:
    """A gateway with every part is asked whatever can be asked: 1 when an answer was wrong."""
    with everything(home) as gateway:
        try:
            found = fuzz(gateway.url, gateway.officer, examples, seed)
        except ImportError as error:
            print(f"{error.name} is not installed: run `make test` once, which installs it", file=sys.stderr)
            return 1
    if as_json:
        print(json.dumps({"fuzz": [one._asdict() for one in found]}, ensure_ascii=False))
    else:
        print("\n".join(f"{one.operation}: {one.what}" for one in found) or "every answer as described, or a problem document")
    return 1 if found else 0


def _words(counts: Mapping[str, int]) -> str:
    """`3 gateway, 2 broker`."""
    return ", ".join(f"{count} {what}" for what, count in counts.items()) or "nothing"


def _folded(line: str) -> str:
    """As it stands on a terminal of 80 columns."""
    return textwrap.fill(line, 79, subsequent_indent="    ")


if __name__ == "__main__":
    sys.exit(main())
