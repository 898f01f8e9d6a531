"""What nodes reach over HTTPS: real TLS on loopback, from a code on a box to a picture that is taken."""

import hashlib
import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography import x509

import edge.identity
from edge.contract.remote import RenewAnswer, claim_id
from edge.signature import believed
from gateway.api import server
from gateway.nodes import claims, picture_quota
from gateway.state import tables
from tests.gateway.nodes.boxes import DAY_US, HOUR_US, Answer, Box, Town, ask, at_work, json_of, town

PICTURE = b"\xff\xd8\xff\xda\0\2 a picture, as far as anybody here can tell \xff\xd9"
SHA = hashlib.sha256(PICTURE).hexdigest()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Town]:
    with town(tmp_path) as made:
        yield made


@pytest.fixture
def port(here: Town) -> Iterator[int]:
    with at_work(here) as got:
        yield got


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Town, int]]:
    """One for all tests that only look."""
    with town(tmp_path_factory.mktemp("looked-at")) as made, at_work(made) as got:
        yield made, got


def upload(port: int, token: str, ca: Path) -> Answer:
    headers = {
        "Authorization": f"Bearer {token}", "Upload-Offset": "0", "Upload-Length": str(len(PICTURE)),
        "Content-Type": "image/jpeg",
    }  # fmt: skip
    return ask(port, "PATCH", f"/api/v1/media/{SHA}", PICTURE, headers, ca)


def test_from_the_code_on_the_box_to_a_picture(here: Town, port: int, tmp_path: Path) -> None:
    identity = Box().claimed_over(port, here.code())
    ca = tmp_path / "of-the-node.pem"
    ca.write_text(identity.ca)
    answer = upload(port, identity.token, ca)  # now it knows whom to trust
    assert (answer.status, answer.headers["Upload-Complete"]) == (200, "?1")
    assert [row.sha256 for row in here.rows(tables.media)] == [SHA]


def test_the_real_node_claims_renews_and_is_refused_when_it_is_revoked(here: Town, port: int, tmp_path: Path) -> None:
    url, state = f"https://localhost:{port}", tmp_path / "node"
    shown = claims.add(here.state, "kitayama-03", 72, here.now_us, "tanaka").shown
    assert edge.identity.claim(shown.lower(), url, state) == "kitayama-03"
    first = edge.identity.certificate((state / "identity" / "certificate.pem").read_bytes())
    here.now_us += 300 * DAY_US
    assert edge.identity.renew(state, url, "kitayama-03", clock="sync").ends_s > first.ends_s
    claims.revoke(here.state, "kitayama-03", "stolen", here.now_us)
    here.now_us += 2 * HOUR_US
    with pytest.raises(edge.identity.ClaimRefused, match="stolen"):
        edge.identity.renew(state, url, "kitayama-03", clock="sync")


def test_a_node_that_was_revoked_uploads_nothing_more(here: Town, port: int) -> None:
    identity = Box().claimed_over(port, here.code())
    claims.revoke(here.state, "kitayama-03", "stolen", here.now_us)
    assert upload(port, identity.token, here.folder / "ca.pem").status == 401


def test_a_node_may_put_pictures_in_and_not_look_at_any(here: Town, port: int) -> None:
    token = Box().claimed_over(port, here.code()).token
    upload(port, token, here.folder / "ca.pem")
    assert ask(port, "GET", f"/api/v1/media/{SHA}", headers={"Authorization": f"Bearer {token}"}).status == 403


def test_a_wrong_code_is_refused_in_words(here: Town, port: int) -> None:
    code, box = here.code(), Box()
    answer = ask(port, "POST", f"/api/v1/claims/{claim_id(code)}", *json_of(box.claim(code, mac="0" * 64)))
    assert answer.status == 403
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "Look at the box again" in answer.detail


def test_too_many_wrong_codes_say_when_to_come_again(here: Town, port: int) -> None:
    answers = [ask(port, "POST", f"/api/v1/claims/{number:04d}", *json_of(Box().claim("0" * 16))) for number in range(21)]
    assert [answer.status for answer in answers] == [403] * 20 + [429]
    assert answers[-1].headers["Retry-After"] == "3"


def test_a_renewal_over_the_wire_is_signed(here: Town, port: int) -> None:
    box = Box()
    identity = box.claimed_over(port, here.code())
    here.now_us += 2 * HOUR_US
    answer = ask(port, "POST", "/api/v1/renewals", *json_of(box.renewal(identity.certificate)), ca=here.folder / "ca.pem")
    renewed, _ = believed(answer.body, [here.care.signer.public], RenewAnswer, "kitayama-03")
    assert renewed.certificate != identity.certificate
    again = ask(port, "POST", "/api/v1/renewals", *json_of(box.renewal(identity.certificate, csr=Box().csr)))
    assert (again.status, again.headers["Retry-After"]) == (429, "3600")


def test_the_time_is_for_everybody(here: Town, port: int) -> None:
    answer = ask(port, "GET", "/api/v1/time")
    assert json.loads(answer.body) == {"now_us": here.now_us}
    assert answer.headers["Cache-Control"] == "no-store"


def test_what_a_node_reaches_is_the_gateways_and_nobody_elses(here: Town, port: int, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with town(tmp_path / "elsewhere") as other, pytest.raises(ssl.SSLCertVerificationError):
        ask(port, "GET", "/api/v1/time", ca=other.folder / "ca.pem")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/api/v1/devices"), ("GET", "/api/v1/openapi.json"), ("GET", "/docs"), ("GET", "/metrics"),
     ("GET", "/api/v1/health"), ("GET", "/api/v1/media/" + "0" * 64), ("POST", "/api/v1/claims")],
)  # fmt: skip
def test_nothing_else_is_there_without_a_token(looked_at: tuple[Town, int], method: str, path: str) -> None:
    answer = ask(looked_at[1], method, path)
    assert answer.status == 401
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/api/v1/devices", "/api/v1/openapi.json", "/api/v1/alerts", "/metrics", "/docs"])
def test_what_people_see_is_not_here_for_a_node_either(looked_at: tuple[Town, int], path: str) -> None:
    here, port = looked_at
    token = Box().claimed_over(port, here.code()).token
    assert ask(port, "GET", path, headers={"Authorization": f"Bearer {token}"}).status == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 422), (b"{", 422), (b"[]", 422), (b'{"csr": 1}', 422), (b"\xff\xfe", 422), (b"x" * 70_000, 413)],
)
def test_what_is_no_claim_is_a_clear_error(looked_at: tuple[Town, int], body: bytes, status: int) -> None:
    answer = ask(looked_at[1], "POST", "/api/v1/claims/7K3M", body, {"Content-Type": "application/json"})
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")


def tls_to(port: int) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    made = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=20))
    made.settimeout(20)
    return made


def hung_up(connection: ssl.SSLSocket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /api/v1/time HT",
        b"POST /api/v1/renewals HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    ],
    ids=["nothing", "half a head", "half a body"],
)
def test_who_connects_and_falls_silent_is_hung_up_on(here: Town, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else anybody could take every file that this gateway may open, and the traps would be deaf."""
    monkeypatch.setattr(server, "IDLE_S", 0.1)
    with at_work(here) as port, tls_to(port) as silent:
        silent.sendall(said)
        assert hung_up(silent)


def asked_for_the_time(connection: ssl.SSLSocket) -> bool:
    connection.sendall(b"GET /api/v1/time HTTP/1.1\r\nHost: x\r\n\r\n")
    said = b""
    while not said.endswith(b"}"):
        said += connection.recv(65536)
    return said.startswith(b"HTTP/1.1 200")


def test_who_asks_and_asks_again_is_not_hung_up_on(here: Town, port: int) -> None:
    with tls_to(port) as node:
        assert all(asked_for_the_time(node) for _ in range(3))


def test_only_so_many_connections_are_held(here: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    with at_work(here) as port, tls_to(port) as first, tls_to(port):
        with tls_to(port) as one_too_many:
            assert hung_up(one_too_many)
        assert asked_for_the_time(first)


def test_one_address_takes_not_all_connections_even_by_saying_nothing_at_all(here: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even TLS' first word: nobody counts those, and each costs memory for a minute."""
    monkeypatch.setattr(server, "MOST_OF_ONE", 3)
    with at_work(here) as port, tls_to(port) as first, ExitStack() as silent:
        mute = [silent.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)) for _ in range(4)]
        for one in mute[2:]:
            assert one.recv(1) == b"", "hung up on at once"
        with socket.create_connection(("127.0.0.1", port), timeout=20, source_address=("127.0.0.2", 0)) as another:
            another.settimeout(0.3)
            with pytest.raises(TimeoutError):
                another.recv(1)
        assert asked_for_the_time(first)
        for one in mute:
            one.close()
        for _ in range(100):  # until the gateway has heard that they are gone
            try:
                with tls_to(port) as later:
                    assert asked_for_the_time(later)
                break
            except OSError:
                continue
        else:
            pytest.fail("who has gone still counts")


def test_no_plain_http(here: Town, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"GET /api/v1/time HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in connection.recv(100)


def test_a_listener_certificate_that_ends_is_made_anew_before_it_serves(tmp_path: Path) -> None:
    years = 3 * 365 * DAY_US
    with town(tmp_path, time.time_ns() // 1000 - years + 30 * DAY_US) as made:
        before = (made.folder / "listener.pem").read_bytes()
        made.now_us += years - 30 * DAY_US
        with at_work(made) as port:
            assert ask(port, "GET", "/api/v1/time", ca=made.folder / "ca.pem").status == 200
        after = x509.load_pem_x509_certificate((made.folder / "listener.pem").read_bytes())
        assert after != x509.load_pem_x509_certificate(before)


def test_a_gateway_that_runs_for_years_shows_its_new_certificate(here: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.nodes.listener.LOOK_EVERY_S", 0.01)
    with at_work(here) as port:
        first = ssl.get_server_certificate(("127.0.0.1", port))
        here.now_us += 2 * 365 * DAY_US + 2 * DAY_US
        deadline = time.monotonic() + 20
        while (now := ssl.get_server_certificate(("127.0.0.1", port))) == first and time.monotonic() < deadline:
            pass
        assert now != first
        assert now.strip() == (here.folder / "listener.pem").read_text().strip()


def test_what_another_process_revokes_reaches_the_brokers_files_by_itself(here: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the command line died between the database and the files."""
    monkeypatch.setattr("gateway.nodes.listener.LOOK_EVERY_S", 0.01)
    with at_work(here) as port:
        Box().claimed_over(port, here.code())
        before = (here.folder / "crl.pem").read_bytes()
        claims.revoke(here.state, "kitayama-03", "stolen", here.now_us)
        deadline = time.monotonic() + 20
        while (here.folder / "crl.pem").read_bytes() == before and time.monotonic() < deadline:
            pass
        assert len(x509.load_pem_x509_crl((here.folder / "crl.pem").read_bytes())) == 1


def test_the_token_of_a_node_whose_certificate_ran_out_opens_nothing_until_it_is_renewed(here: Town, port: int) -> None:
    box = Box()
    identity = box.claimed_over(port, here.code())
    ca = here.folder / "ca.pem"
    here.now_us += (here.config.certificate_days + 1) * DAY_US
    assert upload(port, identity.token, ca).status == 401
    box.renewed(here, identity)
    assert upload(port, identity.token, ca).status == 200


def test_a_node_sends_its_allowance_of_pictures_and_then_waits_while_others_do_not(
    here: Town, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_quota, "DAY_BYTES", len(PICTURE))
    greedy = Box().claimed_over(port, here.code()).token
    other = Box().claimed_over(port, here.code("minamisawa")).token
    ca = here.folder / "ca.pem"
    assert upload(port, greedy, ca).status == 200
    refused = upload(port, greedy, ca)
    assert (refused.status, int(refused.headers["Retry-After"]) >= 60) == (429, True)
    assert upload(port, other, ca).status == 200
    here.now_us += DAY_US
    assert upload(port, greedy, ca).status == 200
