"""Counted at both ends: what the edges' outboxes committed beside what stands in the gateway's databases.

The edges' side is the ledger that a trigger keeps in each outbox's file (see simulators.town); the gateway's side is its tables.
Nothing is taken from anybody's own counters.
"""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from gateway.own_facts import EPOCH as GATEWAY_EPOCH
from simulators.town import Town


class Audit(NamedTuple):
    """What the comparison found. `lost` and `duplicated` must be 0; `waiting` is committed at an edge and not yet taken."""

    produced: int
    stored: int
    lost: int
    duplicated: int
    waiting: int
    quarantined: int
    sprung: int
    """Different trap_sprung events known to the gateway."""
    fired: int
    """Alerts that ever fired."""


def audit(town: Town, began_us: int = 0) -> Audit:
    """Compares record by record. Best when nothing runs any more. `began_us`: samples of before are none of the edges'."""
    produced = stored = lost = duplicated = waiting = 0
    with closing(_open(town.state_db)) as state, closing(_open(town.series_db)) as series:
        for edge in town.edges:
            name = edge.node.name
            with closing(_open(edge.outbox_path)) as outbox:
                ledger = list(outbox.execute("SELECT seq, body FROM sim_ledger ORDER BY utc_us, seq"))
                held = {seq for (seq,) in outbox.execute("SELECT seq FROM records")}
            refused = {seq for (seq,) in state.execute("SELECT seq FROM quarantine WHERE node = ? AND seq NOT NULL", (name,))}
            produced += len(ledger)
            theirs = "FROM events WHERE node = ? AND epoch != ?"  # the gateway's own words of a device stand beside them
            there = {
                seq: (device, kind)
                for seq, device, kind in state.execute(f"SELECT seq, device, type {theirs}", (name, GATEWAY_EPOCH))
            }
            (rows,) = state.execute(f"SELECT count(*) {theirs}", (name, GATEWAY_EPOCH)).fetchone()
            stored += rows
            said: Counter[int] = Counter()
            values: Counter[tuple[str, str, float]] = Counter()
            for seq, body in ledger:
                if body.startswith("{"):
                    event = json.loads(body)
                    said[seq] += 1
                    if there.get(seq) != (event["device"], event["type"]):
                        if seq in held:
                            waiting += 1
                        elif seq not in refused:
                            lost += 1
                elif seq not in refused:
                    device, metric, value = json.loads(f"[{body}]")
                    values[device, metric, float(value)] += 1
            duplicated += rows - sum(1 for seq in there if seq in said)
            found: Counter[tuple[str, str, float]] = Counter()
            for number, device, metric in series.execute(
                "SELECT id, device, metric FROM series WHERE node = ?", (name,)
            ).fetchall():
                those = series.execute("SELECT value FROM readings WHERE series = ? AND time_ms >= ?", (number, began_us // 1000))
                found.update((device, metric, value) for (value,) in those)
            stored += found.total()
            absent = (values - found).total()
            readings_held = sum(1 for seq, body in ledger if seq in held and not body.startswith("{") and seq not in refused)
            waiting += min(readings_held, absent)
            lost += max(absent - readings_held, 0)
            duplicated += (found - values).total()
        (sprung,) = state.execute("SELECT count(*) FROM events WHERE type = 'trap_sprung'").fetchone()
        (fired,) = state.execute("SELECT count(*) FROM alerts WHERE fired_us NOT NULL").fetchone()
        (quarantined,) = state.execute("SELECT count(*) FROM quarantine").fetchone()
    return Audit(produced, stored, lost, duplicated, waiting, quarantined, sprung, fired)


def alerts_by_kind(town: Town) -> dict[str, int]:
    """How many alerts fired, by the kind of place."""
    with closing(_open(town.state_db)) as state:
        return dict(state.execute("SELECT kind, count(*) FROM alerts WHERE fired_us NOT NULL GROUP BY kind ORDER BY kind"))


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
