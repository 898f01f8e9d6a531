"""What a refusal says, and to whom: a sentence in the reader's language, the field by its name, nothing of the inside."""

import json
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.api.bodies import DEEPEST, NotPlain, read_json
from gateway.state import tables
from gateway.words import LANGUAGES, text
from tests.gateway.api.conftest import Gateway

SILENCE = "/api/v1/silences"
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}


def problem(gateway: Gateway, path: str, status: int, **asked: Any) -> dict[str, Any]:
    method = asked.pop("method", "GET")
    answer = gateway.client().request(method, path, **asked)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), answer.text
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    return document


# --- Languages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "language"),
    [
        ({}, "ja"),
        ({"headers": {"Accept-Language": "ja,en;q=0.5"}}, "ja"),
        ({"headers": {"Accept-Language": "en-GB,en;q=0.9,ja;q=0.1"}}, "en"),
        ({"headers": {"Accept-Language": "vi"}}, "en"),
        ({"params": {"lang": "ja-easy"}}, "ja-easy"),
        ({"params": {"lang": "en"}, "headers": {"Accept-Language": "ja"}}, "en"),
        ({"params": {"lang": "tlh"}}, "ja"),
    ],
)
def test_the_title_is_a_sentence_in_the_readers_language(gateway: Gateway, asked: dict[str, Any], language: Any) -> None:
    assert problem(gateway, "/api/v1/nothing", 404, **asked)["title"] == text(language, "fault.404")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_refusal_at_the_gate_speaks_it_too(gateway: Gateway, language: Any) -> None:
    answer = gateway.client(None).get(f"/api/v1/devices?lang={language}")
    assert (answer.status_code, answer.json()["title"]) == (401, text(language, "fault.401"))


@pytest.mark.parametrize(
    ("query", "where", "english", "japanese"),
    [
        ("limit=0", "query.limit", "this must be at least 1", "1以上の数にしてください"),
        ("limit=1001", "query.limit", "this must be at most 1,000", "1,000以下の数にしてください"),
        ("limit=x", "query.limit", "this must be a whole number", "整数で書いてください"),
        ("node=../etc", "query.node", "this is not written as it should be", "書き方が違います"),
    ],
)
def test_a_wrong_field_is_named_with_what_to_do(gateway: Gateway, query: str, where: str, english: str, japanese: str) -> None:
    found = problem(gateway, f"/api/v1/events?{query}&lang=en", 422)
    assert found["detail"] == f"{where}: {english}"
    assert found["errors"] == [{"where": where, "why": english}]
    assert problem(gateway, f"/api/v1/events?{query}", 422)["detail"] == f"{where}: {japanese}"


def test_a_choice_names_what_there_is(gateway: Gateway) -> None:
    found = problem(gateway, "/api/v1/pages?state=gone&lang=en", 422)
    assert found["detail"] == "query.state.0: this must be one of: waiting, asking, answered, exhausted, closed"


@pytest.mark.parametrize(
    ("body", "said"),
    [({}, "is missing"), ([], "an object of fields"), ({"unheard": 1}, "no such field"), ("x", "an object of fields")],
)
def test_no_jargon_of_the_library_comes_out(gateway: Gateway, body: Any, said: str) -> None:
    detail = problem(gateway, f"{SILENCE}?lang=en", 422, method="POST", json=body)["detail"]
    assert said in detail
    for jargon in ("Input should", "Field required", "valid dictionary", "pydantic", "Extra inputs", "str_type"):
        assert jargon not in detail


# --- What is no plain JSON --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": {"b": 1, "b": 1}}', "twice"),
        (b'{"a": NaN}', "not_finite"),
        (b"[-Infinity]", "not_finite"),
        (b"1e999", "huge"),
        (b"9223372036854775808", "huge"),
        (b"-9223372036854775808", "huge"),
        (b"1" * 5000, "huge"),
        (b"[" * 20_000, "deep"),
        (b"[" * 33 + b"]" * 33, "deep"),
        (b'{"a":' * 10_000, "deep"),
        (b'"\\ud800"', "sign"),
        (b'{"\\udfff": 1}', "sign"),
        (b'"a\\u0000b"', "sign"),
        (b"\xef\xbb\xbf{}", "json"),
        (b"{} {}", "json"),
        (b"{}\x00", "json"),
        (b"{", "json"),
        (b"", "json"),
        (b"{'a': 1}", "json"),
        (b"\xff\xfe{\x00}\x00", "utf8"),
        ('{"a": "わな"}'.encode("shift_jis"), "utf8"),
    ],
)
def test_what_two_readers_could_read_in_two_ways_is_refused(gateway: Gateway, body: bytes, why: str) -> None:
    with pytest.raises(NotPlain) as refused:
        read_json(body)
    assert refused.value.fault.why == f"fault.{why}"
    if body:
        found = problem(gateway, f"{SILENCE}?lang=en", 422, method="POST", content=body, headers=JSON)
        assert found["errors"][0]["where"].startswith("body")


@pytest.mark.parametrize("value", [{}, [], "", {"a": [1, -2.5, None, True, "わな🐗"]}, ']]]]{{{{"\\', 2**63 - 1])
def test_what_is_plain_is_read_as_it_stands(value: Any) -> None:
    assert read_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert read_json(json.dumps(value).encode()) == value


plain_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(1 - 2**63, 2**63 - 1) | plain_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_text, inner, max_size=3), max_leaves=8,
))  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_nothing_that_is_plain_is_refused(value: Any) -> None:
    assert read_json(json.dumps(value, ensure_ascii=False).encode()) == value


def test_brackets_inside_of_texts_are_no_depth() -> None:
    assert read_json(json.dumps(["[" * 100]).encode()) == ["[" * 100]
    assert read_json(b"[" * DEEPEST + b"]" * DEEPEST)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(codec=None), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=8,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_as_python_would_or_refused(body: bytes) -> None:
    try:
        value = read_json(body)
    except NotPlain:
        return
    assert value == json.loads(body)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # whatever was taken can be kept and said again


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp", ""]
)
def test_what_says_to_be_something_else_is_not_read(gateway: Gateway, kind: str) -> None:
    found = problem(gateway, f"{SILENCE}?lang=en", 415, method="POST", content=b"{}", headers={"Content-Type": kind})
    assert found["detail"] == "header.Content-Type: Content-Type must be application/json"


def test_nul_is_in_no_name(gateway: Gateway) -> None:
    problem(gateway, "/api/v1/alerts/a%00b", 404)
    problem(gateway, "/api/v1/events?node=a%00b", 422)


@pytest.mark.sqlite_only("PostgreSQL keeps no such name")
def test_what_nul_names_is_not_found_though_it_were_there(gateway: Gateway) -> None:
    gateway.insert(tables.alerts, id="a\0b")
    problem(gateway, "/api/v1/alerts/a%00b", 404)


PAGES = ["/login", "/f", "/f/ABCD-EFGHJ", "/a/x", "/m/x", "/c/x", "/join/ABCD-EFGH", "/v/kitayama-03/trap-11/x"]
"""Where forms come in that need nobody to have come in before."""


@given(st.sampled_from(PAGES), st.text(max_size=20), st.text(max_size=20), st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nul_in_a_form_is_refused_wherever_it_stands(gateway: Gateway, page: str, before: str, after: str, bare: bool) -> None:
    body = f"mail=x&note={quote_plus(before, errors='replace')}NUL{quote_plus(after, errors='replace')}"
    found = problem(gateway, f"{page}?lang=en", 422, method="POST", headers=FORM,
                    content=body.replace("NUL", "\0" if bare else "%00"))  # fmt: skip
    assert found["errors"] == [{"where": "body", "why": text("en", "fault.sign")}]


@pytest.mark.parametrize("page", PAGES)
def test_a_form_in_parts_is_taken_only_where_a_photo_comes_along(gateway: Gateway, page: str) -> None:
    """Each part may say an encoding of its own, in which a NUL is no zero byte: in UTF-7 it is `+AAA-`."""
    headers = {**FORM, "Content-Type": "multipart/form-data; boundary=x; charset=utf-7"}
    part = b'--x\r\nContent-Disposition: form-data; name="mail"\r\n\r\n+AAA-\r\n--x--\r\n'
    found = problem(gateway, f"{page}?lang=en", 415, method="POST", headers=headers, content=part)
    assert found["detail"] == "header.Content-Type: Content-Type must be application/x-www-form-urlencoded"


@given(st.dictionaries(st.sampled_from(["node", "limit", "lang", "before", "type", "class"]), st.text(max_size=20), max_size=3),
       st.text(max_size=40))  # fmt: skip
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_question_in_any_language_has_an_answer(gateway: Gateway, query: dict[str, str], accept: str) -> None:
    headers = {b"Accept-Language": accept.encode("utf-8", "replace")}
    answer = gateway.client().get("/api/v1/events", params=query, headers=headers)
    assert answer.status_code < 500
    assert answer.status_code == 200 or answer.json()["title"]
