"""Every route x every role, off the OpenAPI document, by real requests: what the policy's table says is what happens.

A route without a rule fails here; so do one whose rule asks for a relation and says not to what, and a hidden one nobody knows.
"""

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from unittest.mock import Mock

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import insert

from gateway.api import web
from gateway.api.app import create_app
from gateway.api.built import PAGES
from gateway.api.deps import SIFTED
from gateway.api.described import ALL, Rule, rules_of
from gateway.nodes.care import Care
from gateway.nodes.listener import create_node_app
from gateway.policy import ANY, CASE, GROUP, JOB, PERSON, POLICY, ROLES, THINGS, Actor, Relation
from gateway.state import tables
from tests.gateway.api import policed
from tests.gateway.api.conftest import Gateway
from tests.gateway.api.policed import ACTORS, NEW, STRANGERS, Town, bearer

UNKNOWN = {
    "id": "f" * 8, "node": "nowhere-99", "device": "nothing-99", "sha256": "e" * 64, "tag": "tag-99", "area": "area-99",
    "address": "f" * 8, "session": "f" * 8, "label": "AAAA-AAAA", "name": "name-99", "month": "1999-01",
}  # fmt: skip
_TRAPS = (
    dict(zip(("node", "device"), policed.TRAP, strict=True)),
    dict(zip(("node", "device"), policed.OTHER_TRAP, strict=True)),
)
_NODES = ({"node": policed.NODE}, {"node": policed.OTHER_NODE})
_ALERTS = ({"id": "a-mine"}, {"id": "a-other"})
_PICTURES = ({"sha256": policed.PICTURE}, {"sha256": policed.OTHER_PICTURE})
_PEOPLE = ({"id": policed.HANA}, {"id": policed.TARO})
_CASES = ({"id": policed.CASE}, {"id": policed.OTHER_CASE})
_DOSSIERS = ({"id": policed.DOSSIER}, {"id": policed.OTHER_DOSSIER})
THEIRS: dict[tuple[str, Relation], tuple[dict[str, str], dict[str, str]]] = {
    ("alert", GROUP): _ALERTS, ("alert", JOB): _ALERTS,
    ("alert", PERSON): ({"id": "a-hana"}, {"id": "a-taro"}), ("alert", THINGS): ({"id": "a-other"}, {"id": "a-hana"}),
    ("page", GROUP): ({"id": "p-mine"}, {"id": "p-other"}), ("page", PERSON): ({"id": "p-hana"}, {"id": "p-taro"}),
    ("page", THINGS): ({"id": "p-other"}, {"id": "p-hana"}),
    ("device", GROUP): _TRAPS, ("device", JOB): _TRAPS, ("node", JOB): _NODES,
    ("watched", PERSON): _PEOPLE, ("case", PERSON): _CASES, ("case", CASE): _CASES,
    ("contact", THINGS): ({"id": "x1"}, {"id": "k1"}),  # ids that the policy knows and no path takes: nobody is erased here
    ("capture", GROUP): _DOSSIERS, ("picture", GROUP): _PICTURES, ("picture", JOB): _PICTURES,
}  # fmt: skip
"""What a route is about, and how somebody is tied to it -> the parameters of what is theirs, and of what is not."""

SIGNED = ("/a/", "/c/", "/v/", "/join/", "/push/", "/m/", "/s/", "/hooks/twilio/", "/hooks/line")
"""Hidden routes whose path or body is itself the proof."""
FINDERS = ("/f", "/f/{label}")
"""Who found a tag has no link but what is written on it."""
COMING_IN = ("/login", "/account")
"""Pages of who comes in: they show nothing but to a session's own account."""
FILES = frozenset({"/", "/page.js", "/page.css", "/icon.svg", "/push.js", "/push-worker.js", "/passkey.js"}) | {
    *(path for page in PAGES for path in (page, f"{page}/")), web.WORKER, web.LICENCES, web.ASSETS + "{name}",
}  # fmt: skip
"""Files without data."""


class Answer(NamedTuple):
    status: int
    text: str

    @property
    def is_refused(self) -> bool:
        assert self.status < 500 or self.status in (501, 503), self
        return self.status in (401, 403)


@pytest.fixture
def town(gateway: Gateway) -> Town:
    return Town(gateway)


@pytest.fixture
def whole(town: Town) -> FastAPI:
    """With every part that a gateway can have, so that all routes are there; their rules are read, and nothing is asked."""
    parts = ("answer_page", "desk", "accounts", "push", "twilio", "search", "paging", "signer", "claims", "inbox")
    return create_app(replace(town.gateway.deps, **{part: Mock() for part in parts}))


def documented(whole: FastAPI) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in whole.openapi()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_every_route_has_a_rule_in_the_document_or_says_why_it_has_none(whole: FastAPI) -> None:
    walked = list(documented(whole))
    assert len(walked) > 70
    for method, path, operation in walked:
        action = operation.get("x-action")
        if action is None:
            assert operation.get("x-open"), f"{method} {path} has neither a rule (permitted, sifted) nor a reason (x-open)"
        else:
            assert action in POLICY, f"{method} {path}: {action} has no row in the policy"
            assert "x-open" not in operation, f"{method} {path} has a rule and says that it is open"


def test_a_rule_that_asks_for_a_relation_says_to_what(whole: FastAPI) -> None:
    for method, path, operation in documented(whole):
        asked = {relation for relation in POLICY.get(operation.get("x-action", ""), {}).values() if relation is not ANY}
        if asked:
            assert operation["x-relation"] != ALL, (
                f"{method} {path}: permitted({operation['x-action']!r}) needs its `of`, or sifted"
            )


def test_what_the_document_hides_is_a_page_that_is_known(whole: FastAPI) -> None:
    for rule in rules_of(whole):
        if not rule.documented and rule.action is None:
            known = rule.path in (*FILES, *FINDERS) or rule.path.startswith((*SIGNED, *COMING_IN))
            assert known, f"{rule.method} {rule.path} is hidden, has no rule, and is no page behind a signed link"


def test_every_route_does_for_every_role_what_the_table_says(town: Town, whole: FastAPI) -> None:
    town.gateway.deps.feed.end()  # a stream would not end
    rules = [rule for rule in rules_of(town.app) if rule.action is not None]
    known = {(rule.method, rule.path) for rule in rules}
    assert {(rule.method, rule.path) for rule in rules_of(whole) if rule.action is not None} == known
    wrong = asyncio.run(_walk(town, rules))
    assert not wrong, "\n".join(wrong)


async def _walk(town: Town, rules: list[Rule]) -> list[str]:
    wrong: list[str] = []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(town.app), base_url="http://town") as web:

        async def ask(actor: Actor, rule: Rule, params: dict[str, str]) -> Answer:
            said = {**UNKNOWN, **params}
            path = rule.path.format(**said)
            # What is not in the path is in the query: /readings.
            answer = await web.request(
                rule.method,
                path,
                params=params,
                headers={"Authorization": f"Bearer {bearer(actor)}"},
                json={"is": "no such body"},
            )
            return Answer(answer.status_code, answer.text.replace(actor.name, "WHO"))

        for rule in rules:
            assert rule.action is not None
            if not (await ask(NEW, rule, {})).is_refused:
                wrong.append(f"{rule.method} {rule.path}: opens to a role without rows")
            for role in ROLES:
                wrong += [f"{rule.method} {rule.path} as {role}: {fault}" for fault in await _faults(rule, role, ask)]
    return wrong


async def _faults(rule: Rule, role: str, ask: Any) -> list[str]:
    """In what a route does otherwise than the table says of this role."""
    relation = POLICY[cast(str, rule.action)].get(role)
    theirs = next((mine for (of, _), (mine, _other) in THEIRS.items() if of == rule.relation), {})
    if relation is None or (rule.relation == ALL and relation is not ANY):
        return [] if (await ask(ACTORS[role], rule, theirs)).is_refused else ["opens to who has no right"]
    if rule.relation == SIFTED or relation is ANY:
        return ["is shut to who has the right"] if (await ask(ACTORS[role], rule, theirs)).is_refused else []
    assert (rule.relation, relation) in THEIRS, f"this test does not know what is theirs: {rule.relation}, {relation}"
    mine, other = THEIRS[rule.relation, relation]
    is_mine, is_other, unknown = [await ask(ACTORS[role], rule, params) for params in (mine, other, {})]
    faults = []
    if is_mine.is_refused:
        faults.append(f"is shut to who is tied to it: {is_mine}")
    if not is_other.is_refused:
        faults.append("opens to who is tied to something else")
    if is_other != unknown:
        faults.append(f"tells what there is: {is_other} is not {unknown}")
    if relation is not THINGS and not (await ask(STRANGERS[role], rule, mine)).is_refused:
        faults.append("opens to who is tied to nothing")
    return faults


def test_the_node_listener_opens_to_nodes_what_they_hand_in_and_to_nobody_anything_else(town: Town) -> None:
    app = create_node_app(town.gateway.deps, cast(Care, SimpleNamespace()))
    document, rules = app.openapi()["paths"], list(rules_of(app))
    for rule in rules:
        assert (rule.action is None) == ("x-open" in document[rule.path][rule.method.lower()]), rule
    assert {(rule.method, rule.path) for rule in rules if rule.action is None} == {
        ("POST", "/api/v1/claims/{id}"), ("POST", "/api/v1/renewals"), ("GET", "/api/v1/time"),
    }  # fmt: skip
    to_nodes = [rule.method for rule in rules if rule.action is not None and "node" in POLICY[rule.action]]
    assert sorted(to_nodes) == ["HEAD", "PATCH"]

    token = "a-token-that-a-claim-gave-a-node"
    with town.write() as connection:
        sha256 = hashlib.sha256(token.encode()).hexdigest()
        connection.execute(insert(tables.node_tokens).values(sha256=sha256, node=policed.NODE, issued_us=0))
    town.gateway.insert(tables.certificates)
    web = TestClient(app, raise_server_exceptions=False)
    officers, nodes = ({"Authorization": f"Bearer {one}"} for one in (bearer(ACTORS["officer"]), token))
    for rule in rules:
        if rule.action is not None:
            path = rule.path.format(sha256=policed.PICTURE)
            assert web.request(rule.method, path, headers=officers).status_code == 401, "people come in elsewhere"
            is_shut = web.request(rule.method, path, headers=nodes).status_code == 403
            assert is_shut == (rule.method not in ("HEAD", "PATCH")), rule
