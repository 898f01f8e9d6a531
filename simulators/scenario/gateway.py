"""The gateway of a story: wired as gateway.service wires it, but driven step by step on the story's time, on one thread."""

import asyncio
import json
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
from sqlalchemy import func, select

from gateway.alerting.mute import muting_of
from gateway.api.app import create_app
from gateway.api.deps import Deps
from gateway.api.tokens import read_tokens
from gateway.config import GatewayConfig
from gateway.deployments import Deployments
from gateway.doors import open_doors
from gateway.feed import Feed
from gateway.flush import Answer
from gateway.keeping.late import Keeps
from gateway.media import MediaShelf
from gateway.mimamori.enrolled import Enrolled
from gateway.own import Probe
from gateway.pipeline import Message, Pipeline
from gateway.reach import Outside, open_reach
from gateway.rules import Surroundings, build_rule
from gateway.state import open_state
from gateway.state.tables import notifications, pages
from gateway.telemetry import Telemetry
from gateway.watch import Watch, WatchedRule
from simulators.scenario.wire import PluggedStore, Wire

PUBLIC_URL = "https://gateway.example.jp"
DESK = "token-of-the-officer-at-the-desk"
NODES = "token-of-the-nodes-for-their-pictures"


class Web:
    """Connections to its web side, from any thread; each request is waited for."""

    def __init__(self, app: Any, pool: ThreadPoolExecutor) -> None:
        self._app, self._pool = app, pool

    def get(self, url: str) -> httpx.Response:
        """GET."""
        return self.request("GET", url)

    def post(self, url: str, **asked: Any) -> httpx.Response:
        """POST, with what httpx takes."""
        return self.request("POST", url, **asked)

    def request(self, method: str, url: str, **asked: Any) -> httpx.Response:
        """One request."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL) as client:
                return await client.request(method, url, **asked)

        # In a thread: the story's own loop stands still meanwhile.
        return self._pool.submit(asyncio.run, ask()).result(30)


class Gateway:
    """From its start until it is stopped or killed."""

    def __init__(
        self, config: GatewayConfig, wire: Wire, now_us: Callable[[], int], say: Callable[[str, Mapping[str, Any]], None]
    ) -> None:
        self._wire, self._now_us = wire, now_us
        self.started_us = now_us()
        self._wire_down_us: int | None = None
        telemetry, zone, deployments = Telemetry(), ZoneInfo(config.time_zone), Deployments(config.deployment)
        self.state = open_state(config.state.url)
        self.store = PluggedStore(config.store)  # type: ignore[arg-type]
        enrolled = Enrolled()

        def learn() -> None:
            with self.state.read() as connection:
                enrolled.read(connection)

        learn()
        town = Surroundings(deployments, zone, config.area, enrolled, pictures_told=config.tells_pictures)
        rules = [
            WatchedRule(name, rule.severity, build_rule(rule, town), rule.kind, rule.mode) for name, rule in config.rule.items()
        ]
        probes = {"broker": Probe(lambda: None if wire.running else "the broker is away", 60)} if config.people else {}
        outside = Outside(probes, self._publish, dict, say, learn=learn)
        self.reach = reach = open_reach(config, self.state, deployments, telemetry, now_us, random.Random(1), outside)
        muting = muting_of(config.inhibit, config.maintenance, config.flapping, zone)
        watch = Watch(self.state, [*rules, *reach.rules], deployments, telemetry, say, reach.paging, muting)
        self._pipeline = Pipeline(
            self.state,
            self.store,
            watch,
            telemetry,
            say,
            keeps=Keeps(lambda tag: enrolled.whose(tag) is not None),
            paging=reach.paging,
        )
        media = MediaShelf(config.media.folder, self.state, now_us, config.media.max_mib * 1024 * 1024)
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="story")
        doors = open_doors(config, self.state, reach, now_us)
        app = create_app(
            Deps(
                state=self.state, store=self.store, feed=Feed(), media=media, tokens=read_tokens(config.api.tokens_file),
                telemetry=telemetry, now_us=now_us, health=dict, moved=reach.paging.moved, paging=reach.paging,
                mode_to=config.people.hear_mode if config.people else (),
                answer_page=doors.answer_page, desk=reach.desk, inbox=reach.inbox, line_secret=reach.line_secret,
                push=doors.push, twilio=doors.twilio, deployments=deployments, areas=config.area, rules=config.rule,
                enrolled=enrolled, search=reach.search, consents=reach.consents, labels=reach.labels,
                ring_deliveries=reach.deliverer.ring,
            )
        )  # fmt: skip
        self.web = Web(app, self._pool)

    def desk(self, method: str, path: str, body: Any = None) -> Any:
        """What the officer asks of the API. The JSON of the answer; LookupError when it is refused."""
        said = self.web.request(method, f"/api/v1{path}", json=body, headers={"Authorization": f"Bearer {DESK}"})
        if said.status_code >= 400:
            raise LookupError(f"{method} {path}: {said.status_code} {said.text}")
        return said.json() if said.content else None

    def upload(self, sha256: str, content: bytes) -> None:
        """What a node does with a picture. LookupError when it is refused."""
        headers = {"Authorization": f"Bearer {NODES}", "Upload-Offset": "0", "Upload-Length": str(len(content)),
                   "Content-Type": "image/jpeg"}  # fmt: skip
        said = self.web.request("PATCH", f"/api/v1/media/{sha256}", content=content, headers=headers)
        if said.status_code >= 400:
            raise LookupError(f"PATCH /media: {said.status_code} {said.text}")

    def pass_time(self) -> None:
        """What its threads do each second."""
        if self._wire.running:
            self._wire_down_us = None
        elif self._wire_down_us is None:
            self._wire_down_us = self._now_us()
        self._pipeline.tick(self._now_us(), self.listening_since_us)

    def take(self, messages: list[Message], away_since_us: int | None) -> list[Answer]:
        """A group of messages; the acks."""
        return self._pipeline.process(messages, self._now_us(), away_since_us)

    def work(self) -> None:
        """Its chores and deliveries, as far as they are due."""
        self.reach.chores.step(self._now_us())
        if self.reach.inbox is not None:
            _wait(self.reach.inbox._later)  # replies to strangers, which another thread gives
        self._pool.submit(self.reach.deliverer.step).result(60)  # in a thread, as it always is

    @property
    def listening_since_us(self) -> int | None:
        """Since when it hears the broker; None while it does not."""
        return self.started_us if self._wire.running else None

    def next_us(self) -> int | None:
        """The next moment for which a page or a message waits."""
        now_us = self._now_us()
        with self.state.read() as connection:
            found = [
                connection.scalar(select(func.min(column)).where(column > now_us, condition))
                for column, condition in (
                    (pages.c.due_us, pages.c.state != "closed"),
                    (notifications.c.due_us, notifications.c.state == "queued"),
                    (notifications.c.failover_us, notifications.c.state == "queued"),
                )
            ]
        return min((one for one in found if one is not None), default=None)

    def close(self) -> None:
        """Also what a kill leaves: nothing in memory survives, nothing more is written."""
        self._pool.shutdown()
        self.reach.close()
        self.store.close()
        self.state.close()

    def _publish(self, topic: str, payload: bytes) -> None:
        if self._wire.running:
            self._wire.to_gateway.append(Message(topic, payload))


def _wait(pool: Any) -> None:
    """Until both threads of the inbox are idle."""
    both = threading.Barrier(3)
    for _ in range(2):
        pool.submit(both.wait, 10)
    both.wait(10)


def configuration(script: Mapping[str, Any], home: Path, **more: Any) -> GatewayConfig:
    """The gateway.toml of a story: whatever of its tables the script has, and where things are."""
    tokens = home / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text(f"desk operator,officer {DESK}\nnodes node {NODES}\n", encoding="ascii")
    document = {
        "broker": {"url": "mqtt://127.0.0.1:1883"},
        "state": {"url": f"sqlite:///{home / 'state.db'}"},
        "store": {"type": "sqlite", "path": home / "series.db"},
        "api": {"tokens_file": tokens},
        "media": {"folder": home / "media"},
        **{name: script[name] for name in GatewayConfig.model_fields if name in script},
        **more,
    }
    return GatewayConfig.model_validate(json.loads(json.dumps(document, default=str)))
