"""Who may come in, and what they may do there. Walks the OpenAPI document: a new route without a rule fails here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.api.gate import OPEN
from gateway.api.problems import SECURITY_HEADERS
from gateway.api.tokens import SHORTEST, read_tokens
from gateway.errors import ConfigError
from gateway.policy import ROLES, Actor, Forbidden, Strangers, authorize
from tests.gateway.api.conftest import BEARER, Gateway

SHA = "a" * 64


def operations(client: TestClient) -> list[tuple[str, str]]:
    """Every (method, path) of the API before which a rule stands, its parameters filled in."""
    document: dict[str, Any] = client.get("/api/v1/openapi.json").json()
    return [
        (method.upper(), path.replace("{sha256}", SHA).replace("{id}", "a-1"))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "x-action" in operation
    ]


def test_every_route_but_the_open_ones_wants_a_token_and_a_right(gateway: Gateway) -> None:
    client = gateway.client()
    walked = operations(client)
    assert len(walked) >= 13
    # More wrong tokens than may come from one address: here each comes an hour after the other.

    for method, path in walked:
        without = client.request(method, path, headers={"Authorization": ""})
        assert without.status_code == 401, (method, path)
        assert without.headers["WWW-Authenticate"] == "Bearer"
        gateway.now_us += 3_600_000_000
        unknown = client.request(method, path, headers={"Authorization": "Bearer not-a-token-of-anybody"})
        assert unknown.status_code == 401, (method, path)
        forbidden = client.request(method, path, headers=BEARER["role-without-rights"])
        assert forbidden.status_code == 403, (method, path)


def test_upload_wants_the_right_too(gateway: Gateway) -> None:
    upload = {"Upload-Offset": "0", "Upload-Length": "3", "Content-Type": "image/jpeg"}

    answer = gateway.client("viewer").patch(f"/api/v1/media/{SHA}", content=b"abc", headers=upload)

    assert answer.status_code == 403
    assert gateway.deps.media.offset(SHA) == 0


def test_the_open_routes_are_the_page_and_the_health(gateway: Gateway) -> None:
    client = gateway.client(None)
    shown = {"/", "/page.js", "/page.css", "/icon.svg", "/api/v1/health"}
    proved_by_what_they_bring = {f"/api/v1/push/{name}" for name in ("key", "subscriptions", "unsubscribe")} | {"/hooks/line"}
    only_with_push = {"/push.js", "/push-worker.js"}  # files without data
    only_with_people = {"/f", "/open"}  # /open: what is for everybody; /f: where a finder types what is written on a tag
    built = {"/install", "/mimamori", "/map"}  # files without data; an installation may lack them, and says so
    built |= {f"{page}/" for page in built} | {"/install-worker.js", "/licences"}
    assert shown | proved_by_what_they_bring | only_with_push | only_with_people | built == OPEN
    for path in shown:
        assert client.get(path).status_code == 200, path
    for path in proved_by_what_they_bring | only_with_push | only_with_people:
        assert client.get(path).status_code in (404, 405, 503), path
    for path in built:
        assert client.get(path).status_code in (200, 503), path


@pytest.mark.parametrize(
    "path", ["/docs", "/redoc", "/openapi.json", "/api/v1/nothing", "/nothing", "/page.js/", "/API/v1/health"]
)
def test_what_is_not_a_route_is_shut_too(gateway: Gateway, path: str) -> None:
    assert gateway.client(None).get(path).status_code == 401
    assert gateway.client().get(path).status_code == 404


def test_a_viewer_reads_but_neither_acknowledges_nor_sees_media_sightings_or_raw_messages(gateway: Gateway) -> None:
    viewer = gateway.client("viewer")
    for path in ("devices", "events", "alerts", "losses"):
        assert viewer.get(f"/api/v1/{path}").status_code == 200, path
    assert viewer.post("/api/v1/alerts/a-1/acknowledge").status_code == 403
    assert viewer.get(f"/api/v1/media/{SHA}").status_code == 403
    assert viewer.get("/api/v1/quarantine").status_code == 403


def test_a_node_does_nothing_but_upload(gateway: Gateway) -> None:
    node = gateway.client("node")
    assert node.head(f"/api/v1/media/{SHA}").status_code == 204
    for path in ("devices", "events", "alerts", "losses", "quarantine", f"media/{SHA}"):
        assert node.get(f"/api/v1/{path}").status_code == 403, path


def test_authorize_denies_what_the_table_does_not_say() -> None:
    authorize(Actor("tanaka", frozenset({"operator"})), "silence.set", None, Strangers())
    for role in [*ROLES, "unheard-of"]:
        with pytest.raises(Forbidden, match=r"may not alert\.delete here"):
            authorize(Actor("x", frozenset({role})), "alert.delete", None, Strangers())


def test_every_answer_carries_the_security_headers(gateway: Gateway) -> None:
    def broken() -> int:
        raise RuntimeError("the clock is gone")

    answers = [
        gateway.client(None).get("/"),
        gateway.client(None).get("/api/v1/devices"),
        gateway.client().get("/api/v1/devices"),
        gateway.client().get("/api/v1/nothing"),
        gateway.client().get("/api/v1/readings"),
        gateway.client(now_us=broken).get("/api/v1/devices"),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 200, 404, 422, 500]
    for answer in answers:
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers.get_list(name) == [value]
    assert "unsafe" not in SECURITY_HEADERS["Content-Security-Policy"]
    assert "the clock is gone" not in answers[-1].text
    assert answers[-1].json()["status"] == 500


@pytest.mark.parametrize(("body", "status"), [(b" " * 100_000, 413), (iter([b" "] * 100_000), 411)])
def test_a_large_body_is_refused_before_it_is_read(gateway: Gateway, body: bytes | Iterator[bytes], status: int) -> None:
    answer = gateway.client().post("/api/v1/alerts/a-1/acknowledge", content=body)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


# ---- The file of tokens ----------------------------------------------------------------------------

GOOD = "# who comes in\n\ntanaka operator operator-token-for-tests\nkitayama-03 node node-token-for-tests-123\n"


def token_file(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "tokens"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def test_tokens_are_read_and_found(tmp_path: Path) -> None:
    tokens = read_tokens(token_file(tmp_path, GOOD))
    assert tokens.actor("operator-token-for-tests") == Actor("tanaka", frozenset({"operator"}))
    assert tokens.actor("operator-token-for-test") is None
    assert tokens.actor("") is None


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o620])
def test_a_file_that_others_can_get_at_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        read_tokens(token_file(tmp_path, GOOD, mode))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "no token"),
        ("tanaka operator", "line 1 has 2 words"),
        ("\ntanaka king a-token-that-is-long-enough", "line 2: 'king' is no role"),
        ("tanaka operator short", "too short"),
        ("a operator a-token-that-is-long-enough\nb viewer a-token-that-is-long-enough", "same token as a"),
        (b"\xff\xfe", "can't be read"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, text: str | bytes, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong) as refused:
        read_tokens(token_file(tmp_path, text))
    assert "a-token-that-is-long-enough" not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        read_tokens(tmp_path / "none")


LINE = st.tuples(
    st.sampled_from(["tanaka", "田中", "#", ""]),
    st.sampled_from(["operator", "operator,viewer", "king", "operator,", ""]),
    st.sampled_from(["a" * 19, "b" * 20, "c" * 21, "か" * 20, "b" * 20 + " x", "b" * 20 + "\x85"]),
)
LINES = st.lists(LINE.map(" ".join), max_size=3).map(lambda lines: "\n".join(lines).encode())


@given(st.binary(max_size=300) | LINES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@example(GOOD.encode())
@example(GOOD.replace("tanaka", "田中").encode())
def test_any_bytes_are_tokens_or_a_config_error(tmp_path: Path, text: bytes) -> None:
    """And what is taken stands there: each line's third word opens for its first, as what its second says, and no other does."""
    try:
        read = read_tokens(token_file(tmp_path, text))
    except ConfigError:
        return
    lines = [line.split() for line in text.decode().splitlines() if line.split() and not line.split()[0].startswith("#")]
    assert lines
    for name, roles, token in lines:
        assert set(roles.split(",")) <= set(ROLES)
        assert token.isascii()
        assert len(token) >= SHORTEST
        assert read.actor(token) == Actor(name, frozenset(roles.split(",")))
    tokens = {token for _, _, token in lines}
    assert len(tokens) == len(lines)
    for other in {one for words in lines for one in (*words, words[2][:-1], " ".join(words), "")} - tokens:
        assert read.actor(other) is None


@given(st.text(max_size=60).filter(lambda text: "\n" not in text and "\r" not in text))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_no_made_up_authorization_comes_in(gateway: Gateway, text: str) -> None:
    header = text.encode("utf-8", "replace")
    answer = gateway.client(None).get("/api/v1/devices", headers={b"Authorization": header})
    assert answer.status_code == 401
