"""A page of people (tests.gateway.paged) whose messages can be opened and answered by their links."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from gateway.api.answer import AnswerPage, routes, taking
from gateway.api.gate import Gate
from gateway.api.problems import add_problem_handlers
from gateway.api.tokens import Tokens
from gateway.notify.links import Links
from gateway.state import tables
from tests.gateway.paged import HOUR_US, ZONE, Paged

LINKS = Links("https://gateway.example", bytes(range(32)))
NAVIGATES = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none"}


class Answering(Paged):
    """One client a person: whoever has the link."""

    def __init__(self, folder: Path, *route: Any, **paging: Any) -> None:
        super().__init__(folder, *route, **paging)
        page = AnswerPage(
            self.state, LINKS, ZONE, lambda: self.now_us, self.book.name_of,
            taking(self.paging.answers.answer_to),
            push_url=lambda contact, _now_us: f"https://gateway.example/push/of-{contact}", phone="050-0000-0009",
        )  # fmt: skip
        self.app = FastAPI()
        add_problem_handlers(self.app)
        self.app.add_middleware(Gate, tokens=Tokens({}))
        self.app.include_router(routes(page))
        self.client = TestClient(self.app, raise_server_exceptions=False)

    def __enter__(self) -> "Answering":
        return self

    def link(self, who: str, *, lasts_us: int = 24 * HOUR_US) -> str:
        """The path of the link in the last message to this person."""
        return LINKS.answer_url(self.last(who).id, self.now_us + lasts_us).removeprefix("https://gateway.example")

    def speaks(self, who: str, language: str) -> None:
        with self.state.write() as connection:
            connection.execute(update(tables.contacts).where(tables.contacts.c.id == who).values(language=language))

    def row(self, who: str) -> dict[str, Any]:
        """The last message to this person in the ledger."""
        with self.state.read() as connection:
            return dict(
                connection.execute(select(tables.notifications).where(tables.notifications.c.id == self.last(who).id))
                .mappings()
                .one()
            )
