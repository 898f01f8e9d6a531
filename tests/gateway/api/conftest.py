"""A gateway's web side with a real database, a real series store and real files; only its clock is the test's."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Table, insert

from gateway.api.app import create_app
from gateway.api.deps import Deps
from gateway.api.tokens import Tokens
from gateway.deployments import Deployment, Deployments
from gateway.feed import Feed
from gateway.media import MediaShelf
from gateway.mimamori.enrolled import Enrolled
from gateway.policy import Actor
from gateway.relations import Relations
from gateway.state import State, open_state
from gateway.store import SqliteStore, SqliteStoreConfig
from gateway.telemetry import Telemetry

NOW_US = 1_780_434_720_000_000  # 2026-06-02T21:12:00Z, 3 June 06:12 in Japan
MINUTE_US = 60_000_000

TOKENS = {
    "operator-token-for-tests": Actor("tanaka", frozenset({"operator", "officer"})),
    "viewer-token-for-tests-1": Actor("board", frozenset({"viewer"})),
    "node-token-for-tests-123": Actor("kitayama-03", frozenset({"node"})),
    "nobody-token-for-tests-1": Actor("nobody", frozenset({"role-without-rights"})),
}
BEARER = {
    role: {"Authorization": f"Bearer {token}"}
    for role, token in {
        "operator": "operator-token-for-tests", "viewer": "viewer-token-for-tests-1",
        "node": "node-token-for-tests-123", "role-without-rights": "nobody-token-for-tests-1",
    }.items()
}  # fmt: skip
"""In a small town one person is operator and officer; `operator` here is such a person."""


@dataclass
class Gateway:
    """What a test works on."""

    deps: Deps
    state: State
    store: SqliteStore
    now_us: int = NOW_US
    _app: tuple[Deps, FastAPI] | None = None

    def client(self, role: str | None = "operator", **changed: Any) -> TestClient:
        """A client with that role's token; `changed` replaces fields of the deps. One app serves all who change nothing."""
        if changed:
            app = create_app(replace(self.deps, **changed))
        else:
            if self._app is None or self._app[0] is not self.deps:
                self._app = (self.deps, create_app(self.deps))
            app = self._app[1]
        return TestClient(app, headers=BEARER[role] if role else {}, raise_server_exceptions=False)

    def insert(self, table: Table, **values: Any) -> None:
        """Adds a row, with sensible values for what the test does not care about."""
        with self.state.write() as connection:
            connection.execute(insert(table).values({**DEFAULTS[table.name](self.now_us), **values}))


DEFAULTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "nodes": lambda now: {"node": "kitayama-03", "online": True, "seen_us": now},
    "devices": lambda now: {"node": "kitayama-03", "device": "trap-11", "kind": "reed_trap"},
    "latest": lambda now: {
        "node": "kitayama-03", "device": "trap-11", "metric": "trap_closed", "time_us": now, "received_us": now,
        "seq": 1, "value": 0.0,
    },
    "events": lambda now: {
        "node": "kitayama-03", "epoch": "0" * 16, "seq": 1, "device": "trap-11", "type": "trap_sprung",
        "class_": "alarm", "time_us": now, "node_time_us": now, "received_us": now, "late": False,
        "clock_trusted": True, "body": '{"folded": 0}',
    },
    "alerts": lambda now: {
        "id": "a-1", "rule": "sprung", "kind": "trap", "severity": "critical", "node": "kitayama-03",
        "device": "trap-11", "opening": "0:1", "state": "firing", "since_us": now - MINUTE_US, "late": False,
        "summary": "trap_sprung", "fired_us": now - MINUTE_US, "version": 1,
    },
    "alert_history": lambda now: {
        "alert": "a-1", "at_us": now - MINUTE_US, "before": None, "after": "firing", "who": "rule", "why": "trap_sprung"
    },
    "notifications": lambda now: {
        "id": "n-1", "alert": "a-1", "contact": "farmers-kitayama", "state": "sent", "body": "{}",
        "created_us": now - MINUTE_US, "due_us": now - MINUTE_US, "attempts": 1, "sent_us": now,
    },
    "pictures": lambda now: {
        "sha256": "a" * 64, "node": "kitayama-03", "device": "cam-02", "content": "unclassified", "withheld": False,
        "captured_us": now,
    },
    "certificates": lambda now: {"serial": "01", "node": "kitayama-03", "issued_us": now, "not_after_us": now + MINUTE_US},
    "losses": lambda now: {
        "node": "kitayama-03", "epoch": "0" * 16, "low": 5, "high": 9, "reason": "outbox full", "recorded_us": now
    },
    "quarantine": lambda now: {
        "received_us": now, "node": None, "seq": None, "topic": "satomori/v1/00/x/up/live", "reason": "no JSON",
        "size": 4, "payload": b"\xff<b>",
    },
}  # fmt: skip


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    state = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    store = SqliteStore(SqliteStoreConfig(type="sqlite", path=tmp_path / "series.db"))
    try:
        deployments = Deployments([Deployment(node="kitayama-03", device="trap-11", kind="trap", place="北尾根", label="3番")])
        enrolled = Enrolled()
        deps = Deps(
            state=state,
            store=store,
            feed=Feed(),
            media=MediaShelf(tmp_path / "media", state, lambda: made.now_us, limit_bytes=4 * 1024 * 1024),
            tokens=Tokens(TOKENS),
            telemetry=Telemetry(),
            now_us=lambda: made.now_us,
            health=lambda: {"broker": True, "store": True},
            deployments=deployments,
            enrolled=enrolled,
            world=Relations(state, deployments, enrolled, lambda: made.now_us),
            stale_after_s=600,
        )
        made = Gateway(deps, state, store)
        yield made
    finally:
        store.close()
        state.close()
