"""What routes say of a refusal, it says in the reader's language: as an id of the catalogues, never as a sentence of its own."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gateway.api
from gateway.words import LANGUAGES, has, text
from tests.gateway.api.conftest import NOW_US, Gateway

API = Path(gateway.api.__file__).parent
SAYING = {"Problem": 1, "problem": 1, "ProblemResponse": 1, "NotHere": None}
"""What refuses -> which of its arguments says why; None: it has its words."""

IN_ENGLISH = {
    "facts.py": {
        "f\"type: {type!r} is no event; there are {', '.join(known)}\"",
        "f\"class: {class_!r} is no class; there are {', '.join(classes)}\"",
    },
    "hooks.py": {
        "'X-Line-Signature is not that of this channel\\'s secret.'",
        "'The body is no webhook of LINE: JSON with `events` was expected.'",
        "f'`events` is no list of at most {MOST_EVENTS} objects.'",
    },
    "hooks_twilio.py": {
        "'This is no form as Twilio sends it.'",
        '"X-Twilio-Signature is not that of this account\'s auth token."',
        "'This names no call and no message, or not what became of it.'",
    },
    "push.py": {"f'subscription: {error}.'", "f'subscription.endpoint: {error}.'"},
    "readings.py": {
        "f\"metric: {metric!r} is not in the table; there are {', '.join(METRICS)}\"",
        "'start: not before end'",
        "f'bucket: {steps} buckets asked for, at most {MAX_BUCKETS}; ask for longer ones'",
        "f'{name}: {error}'",
    },
}
"""Details that stay English, because only programs read them: who asks for readings or facts by hand-made queries, the providers
that call webhooks, and the script that hands over what a browser subscribed."""


def said_by(call: ast.Call) -> ast.expr | None:
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    place = SAYING.get(name)
    if place is None:
        return None
    return next((one.value for one in call.keywords if one.arg == "why"), call.args[place] if len(call.args) > place else None)


def choices(said: ast.expr) -> Iterator[ast.expr]:
    if isinstance(said, ast.IfExp):
        yield from choices(said.body)
        yield from choices(said.orelse)
    else:
        yield said


def is_of_the_catalogues(said: ast.expr) -> bool:
    if isinstance(said, ast.JoinedStr):  # not_taken.{reason}: tests/gateway/words holds that there are such ids
        return isinstance(said.values[0], ast.Constant) and str(said.values[0].value) == "not_taken."
    return isinstance(said, ast.Constant) and isinstance(said.value, str) and (has(said.value) or has(f"{said.value}.title"))


def sentences(file: Path) -> set[str]:
    tree = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    caught = {node.name for node in tree if isinstance(node, ast.ExceptHandler)}  # a Refusal with its own id, or mypy says so
    said = [one for call in tree if isinstance(call, ast.Call) and (why := said_by(call)) is not None for one in choices(why)]
    passed_on = [one for one in said if isinstance(one, ast.Name) and one.id in caught]
    return {ast.unparse(one) for one in said if one not in passed_on and not is_of_the_catalogues(one)}


def ids_with_facts(tree: ast.Module) -> Iterator[tuple[str, set[str]]]:
    """Of each call that says an id below `why.`: the id, and the names of the facts that it gives."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or any(one.arg is None for one in call.keywords):
            continue
        given = [*call.args, *(one.value for one in call.keywords)]
        dicts = [key for one in given if isinstance(one, ast.Dict) for key in one.keys]
        facts = {one.arg for one in call.keywords if one.arg} | {str(key.value) for key in dicts if isinstance(key, ast.Constant)}
        for one in (constant for argument in call.args for constant in choices(argument)):
            if isinstance(one, ast.Constant) and isinstance(one.value, str) and one.value.startswith("why."):
                yield one.value, facts


def test_every_refusal_is_an_id_of_the_catalogues_but_those_for_programs() -> None:
    own = {"problems.py"}  # which passes on what it was given
    found = {file.name: said for file in API.glob("*.py") if file.name not in own and (said := sentences(file))}
    allowed = {name: {ast.unparse(ast.parse(one, mode="eval").body) for one in said} for name, said in IN_ENGLISH.items()}
    assert found == allowed


def test_every_refusal_of_the_domain_gives_the_facts_of_its_sentence() -> None:
    """One that is missing would answer a wrong request with a failure of ours."""
    said = [one for file in sorted(API.parent.rglob("*.py")) for one in ids_with_facts(ast.parse(file.read_text("utf-8")))]
    lacking = set()
    for id_, facts in said:
        sentence = id_ if has(id_) else f"{id_}.body"
        given: dict[str, Any] = dict.fromkeys(facts, "x")
        try:
            text("en", sentence, **given)
        except LookupError as error:
            lacking.add(str(error))
    assert lacking == set()
    assert {"why.job_label", "why.no_node", "why.searched_for", "why.last_officer"} <= {id_ for id_, _ in said}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("path", "body", "status", "why", "facts"),
    [
        ("/api/v1/alerts/a-1", None, 404, "why.no_alert", {}),
        ("/api/v1/areas/x/day", None, 404, "fault.404", {}),
        ("/api/v1/silences/9/end", {}, 404, "why.no_silence", {}),
        ("/api/v1/alerts/a-1/shelve", {"until_us": NOW_US, "why": "x"}, 422, "why.shelf", {}),
        ("/api/v1/media/" + "0" * 64, None, 404, "why.no_picture", {}),
        ("/api/v1/visits", {"id": "1" * 32, "node": "x", "device": "y", "result": "set", "at_us": 1}, 404, "why.no_trap", {}),
        ("/api/v1/silences", {"match": {}, "until_us": NOW_US + 1, "why": "x"}, 422, "why.silence_all", {}),
        ("/api/v1/silences", {"match": {"node": "x"}, "until_us": 2 * NOW_US, "why": "x"}, 422, "why.at_most_days", {"n": 31}),
        (
            "/api/v1/jobs",
            {"account": "0" * 16, "label": "x", "nodes": ["x"], "until_us": NOW_US + 1},
            422,
            "why.job_account",
            {},
        ),
        ("/api/v1/erasures", {"kind": "watched", "id": "0" * 16}, 404, "why.nobody", {}),
    ],
)
def test_what_is_wrong_is_said_in_the_readers_language(
    gateway: Gateway, language: Any, path: str, body: Any, status: int, why: str, facts: dict[str, Any]
) -> None:
    client = gateway.client()
    ask = f"{path}?lang={language}"
    answer = client.get(ask) if body is None else client.post(ask, json=body)
    assert (answer.status_code, answer.json()["detail"]) == (status, text(language, why, **facts))


def test_who_may_not_hears_what_they_lack(gateway: Gateway) -> None:
    answer = gateway.client("viewer").get("/api/v1/contacts")
    assert answer.status_code == 403
    assert "contact.read" in answer.json()["detail"]
    assert answer.json()["detail"].startswith("あなたの役割では")


def test_what_is_not_configured_is_nothing_to_try_again(gateway: Gateway) -> None:
    for path, setting in (("/api/v1/nodes/kitayama-03/claim", "[nodes]"), ("/api/v1/groups", "[people]")):
        client = gateway.client()
        answer = client.post(path, json={}) if "nodes" in path else client.get(path)
        said = answer.json()
        assert (answer.status_code, said["title"]) == (404, "この里守りでは使えません。")
        assert setting in said["detail"]
        assert "Retry-After" not in answer.headers


def test_staff_that_look_without_a_reason_are_asked_for_it(gateway: Gateway) -> None:
    with_nobody = gateway.client().get("/api/v1/watched?why=search/1")
    assert (with_nobody.status_code, with_nobody.json()["title"]) == (400, text("ja", "fault.400"))
    assert with_nobody.json()["detail"] == text("ja", "why.own_words")
