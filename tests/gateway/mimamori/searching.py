"""A town that searches: real paging, a real database, ハナさん and her tag, and the phones of everybody who is told."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from fastapi.testclient import TestClient
from sqlalchemy import insert, select, update

from gateway.alerting.lifecycle import Alert, Move
from gateway.api.answer import AnswerPage, taking
from gateway.api.app import create_app
from gateway.api.deps import Deps
from gateway.api.tokens import Tokens
from gateway.contacts.book import Book
from gateway.contacts.config import GroupConfig
from gateway.deployments import Deployment, Deployments
from gateway.feed import Feed
from gateway.keeping.config import KeepConfig
from gateway.keeping.retention import Retention
from gateway.media import MediaShelf
from gateway.mimamori.config import MimamoriConfig, SearchConfig
from gateway.mimamori.enrolled import WATCHED
from gateway.mimamori.knowing import Knowing
from gateway.mimamori.search import Search
from gateway.notify.links import Links
from gateway.notify.message import Answer, Message
from gateway.paging import Answered, NotTaken, Paging
from gateway.policy import Actor
from gateway.state import open_state, tables
from gateway.store import SqliteStore
from gateway.telemetry import Telemetry
from gateway.telling import Teller
from tests.gateway.paged import ZONE, Paged

HANA, TAG = "ab" * 8, "ibeacon:0f:1:2"
FAMILY: Mapping[str, Sequence[str]] = {
    "family-hana": ("haruka", "minoru"), "office": ("yakuba",), "volunteers": ("ichi", "ni", "san"), "next": ("yon", "go"),
}  # fmt: skip
IDS = {name: f"{number:02x}" * 8 for number, name in enumerate((one for names in FAMILY.values() for one in names), 17)}
NAMES = {id_: name for name, id_ in IDS.items()}
CONFIG: dict[str, Any] = {"volunteers": "volunteers", "step": [{"after": "30m", "to": ["next"]}]}
ROUTES: list[Mapping[str, Any]] = [
    {"match": {"kind": "watched"}, "steps": [{"to": "family"}, {"after": "10m", "to": "office"}, {"after": "20m", "to": "hook"}]},
    {"to": ["office"]},
]
LINKS = Links("https://gateway.example", bytes(range(32)))
TOKENS = {
    "operator-token-for-tests": Actor("tanaka", frozenset({"operator", "officer"})),
    "viewer-token-for-tests-1": Actor("board", frozenset({"viewer"})),
}


class Searching(Paged):
    """Everybody is called by their name; their ids are those of real contacts."""

    MORE: Sequence[Deployment] = ()
    """Devices besides the receivers."""

    def __init__(self, folder: Path, config: Mapping[str, Any] = CONFIG) -> None:
        self.config = SearchConfig.model_validate(config)
        self.begin(folder, ROUTES)
        with self.state.write() as connection:
            for group, names in FAMILY.items():
                for name in names:
                    self.add(connection, group, IDS[name])
                    connection.execute(update(tables.contacts).where(tables.contacts.c.id == IDS[name]).values(name=name))
            connection.execute(
                insert(tables.watched),
                {"id": HANA, "name": "ハナさん", "family": "family-hana", "homes": json.dumps(["tsubaki/tags"]), "created_us": 0,
                 "created_by": "test"},
            )  # fmt: skip
            connection.execute(insert(tables.tags), {"tag": TAG, "watched": HANA, "enrolled_us": 0, "enrolled_by": "test"})

    def __enter__(self) -> "Searching":
        return self

    def _open(self) -> None:
        self.groups = {name: GroupConfig(label={"next": "となり町"}.get(name, name)) for name in FAMILY}
        self.state = open_state(f"sqlite:///{self.folder / 'state.db'}")
        places = (("tsubaki", "つばきの家"), ("kominkan", "中央公民館"), ("eki", "駅前"))
        receivers = [Deployment(node=node, device="tags", kind="tags", place=place) for node, place in places]
        self.deployments = Deployments([*receivers, *self.MORE])
        self.book = Book(self.groups, ["hook"], ZONE)
        self.search = Search(self.state, self.config, self.book, self.deployments, lambda: self.paging, office="office")
        knowing = Knowing(self.search, MimamoriConfig(), LINKS)
        teller = Teller(self.deployments, ZONE, answer_url=LINKS.answer_url, links_for=knowing.links_for)
        self.paging = Paging(
            self.state, self.routes, self.deployments, self.book, teller, office="office",
            say=lambda kind, body: self.said.append((kind, body)), on_answer=self.search.on_answer, more=knowing.more,
        )  # fmt: skip
        self.retention = Retention(self.state, KeepConfig())

    # What happens

    def misses(self, summary: str = "left home", **facts: Any) -> Alert:
        """ハナさん's tag is away, so far as the rules say."""
        self._openings += 1
        facts = {"watched": HANA, "family": "family-hana", "place": "つばきの家", "seen_us": self.now_us - 60_000_000, **facts}
        alert = Alert(
            f"00000000-0000-4000-8000-{self._openings:012}", "night-exit", "watched", "critical", WATCHED, HANA,
            f"o:{self._openings}", "firing", self.now_us, False, summary, json.dumps(facts, ensure_ascii=False),
            fired_us=self.now_us,
        )  # fmt: skip
        self.move(Move(alert, None, summary, tell=True))
        return alert

    def opened(self, who: str = "haruka", reason: str = "散歩から戻らない") -> str:
        with self.state.write() as connection:
            return self.search.open(connection, HANA, reason, IDS.get(who, who), self.now_us).case

    def does(self, what: str, case: str, who: str, *more: Any) -> bool:
        with self.state.write() as connection:
            done: bool = getattr(self.search, what)(connection, case, IDS.get(who, who), *more, self.now_us)
            return done

    def heard(self, node: str, tag: str = TAG, type_: str = "tag_entered", ago_us: int = 0) -> None:
        """A receiver hears a tag."""
        seq = len(self.rows(tables.events)) + 1
        with self.state.write() as connection:
            connection.execute(
                insert(tables.events),
                {"node": node, "epoch": "0" * 16, "seq": seq, "device": "tags", "type": type_, "class_": "sighting",
                 "time_us": self.now_us - ago_us, "node_time_us": self.now_us, "received_us": self.now_us, "late": False,
                 "clock_trusted": True, "body": json.dumps({"tag": tag})},
            )  # fmt: skip

    def remembers(self, rule: str = "night-exit", **memory: Any) -> None:
        """What a presence rule knows of her."""
        with self.state.write() as connection:
            body = json.dumps(memory)
            connection.execute(insert(tables.rule_states), {"rule": rule, "node": WATCHED, "device": HANA, "body": body})

    def tick(self) -> None:
        self.paging.tick(self.now_us)
        self.search.tick(self.now_us)

    def wait(self, us: int, step_us: int = 30_000_000) -> None:
        """Time passes; the chore looks every half minute."""
        until_us = self.now_us + us
        while self.now_us < until_us:
            self.now_us = min(self.now_us + step_us, until_us)
            self.tick()

    def says(self, who: str, answer: Answer, kind: str) -> Answered | NotTaken:
        """What somebody answers to the page of this kind."""
        [page] = [row["id"] for row in self.rows(tables.pages) if row["kind"] == kind]
        return self.answer(IDS[who], answer, page)

    # What is so

    def case(self) -> dict[str, Any]:
        return self.rows(tables.search_cases)[-1]

    def told(self) -> dict[str, list[str]]:
        """The titles of what was queued since the last call, by name."""
        found: dict[str, list[str]] = {}
        for row in self.ledger():
            if row["id"] not in self._seen:
                name = NAMES.get(row["contact"], row["contact"])
                found.setdefault(name, []).append(Message.model_validate_json(row["body"]).title)
        self._seen = {row["id"] for row in self.ledger()}
        return found

    def last(self, who: str) -> Message:
        return super().last(IDS.get(who, who))

    def rows_of_alerts(self) -> list[str]:
        """The ids of all alerts."""
        return [row["id"] for row in self.rows(tables.alerts)]

    def history(self) -> list[tuple[str, str]]:
        return [(NAMES.get(row["who"], row["who"]), row["what"]) for row in self.rows(tables.search_changes)]

    def link(self, who: str) -> str:
        """The path of the page that the last message to somebody offers."""
        [link] = self.last(who).links
        return link.url.removeprefix("https://gateway.example")

    def client(self, role: str | None = None, **changed: Any) -> TestClient:
        answers = AnswerPage(
            self.state,
            LINKS,
            ZONE,
            lambda: self.now_us,
            self.book.name_of,
            taking(self.paging.answers.answer_to),
            self.search.withheld,
        )
        self.deps = deps = Deps(
            state=self.state, store=MagicMock(SqliteStore), feed=Feed(),
            media=MediaShelf(self.folder / "media", self.state, lambda: self.now_us, 1),
            tokens=Tokens(TOKENS), telemetry=Telemetry(), now_us=lambda: self.now_us, health=dict,
            deployments=self.deployments, paging=self.paging, answer_page=answers, search=self.search, **changed,
        )  # fmt: skip
        bearer = [token for token, actor in TOKENS.items() if role in actor.roles]
        headers = {"Authorization": f"Bearer {bearer[0]}"} if bearer else {}
        self.app = create_app(deps)
        return TestClient(self.app, headers=headers, raise_server_exceptions=False, follow_redirects=True)


def everything(town: Paged) -> str:
    """Every row of every table, as text."""
    with town.state.read() as connection:
        return "\n".join(
            f"{table.name}: {dict(row)}"
            for table in tables.metadata.sorted_tables
            for row in connection.execute(select(table)).mappings()
        )
