"""How a node is claimed and stays itself: against a real HTTPS server, whose certificate proves nothing at a claim."""

import asyncio
import base64
import datetime as dt
import json
import os
import random
import ssl
import stat
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import cli, identity, status
from edge.clock import Instant, SystemClock, boot_id
from edge.config import load
from edge.contract.messages import encode
from edge.contract.remote import (
    ClaimAnswer,
    ClaimRequest,
    Desired,
    Expected,
    Identity,
    RemoteBroker,
    RenewAnswer,
    RenewRequest,
    claim_mac,
    renewal_text,
)
from edge.errors import ConfigError
from edge.expected import ExpectedTags
from edge.timekeeper import FILE, Timekeeper, remember
from edge.twin import Document, Memory, Twin
from edge.uplink import make_client
from gateway.nodes.signing import Signer
from simulators.clock import VirtualClock
from simulators.ports import free_port
from tests.edge.authority import DAY, Authority

CODE = "7K3M-9QWX-2B4D-HT6V"
NODE = "kitayama-03"
TOKEN = "media-token"
NOW_US = 1_780_434_720_000_000

Answer = tuple[int, bytes] | None


class Gateway:
    """The node listener as a claim and a renewal meet it. `answer` may do to its answers what a test wants."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.authority = Authority()
        self.signer = Signer.make(folder / "signing-key.pem")
        self.certificate, self.key = self.authority.write_pair(folder, "gateway")
        self.device: dict[str, Any] = {"trap-11": {"type": "reed_trap", "pin": 17}}
        self.ends = 365 * DAY
        self.asked: list[tuple[str, bytes]] = []
        self.answer: Callable[[int, bytes], Answer] = lambda status, body: (status, body)
        self.url = ""

    def identity(self, csr: str) -> Identity:
        key = x509.load_pem_x509_csr(csr.encode()).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return Identity(
            node=NODE,
            certificate=self.authority.issue(NODE, key, ends=self.ends),
            ca=self.authority.pem,
            keys=[base64.b64encode(self.signer.public).decode()],
            broker_url="mqtts://127.0.0.1:8883",
            gateway_url=self.url,
            token=TOKEN,
            device=self.device,
            now=NOW_US,
        )

    def reply(self, path: str, body: bytes) -> Answer:
        self.asked.append((path, body))
        if path == "/api/v1/claims/7K3M":
            request = ClaimRequest.model_validate_json(body)
            if request.mac != claim_mac(CODE, "request", request.csr, request.nonce):
                return 404, b'{"title": "no such claim"}'
            said = self.identity(request.csr).model_dump_json()
            good = encode(ClaimAnswer(body=said, mac=claim_mac(CODE, "answer", said, request.nonce)))
        elif path == "/api/v1/renewals":
            renewal = RenewRequest.model_validate_json(body)
            present = x509.load_pem_x509_certificate(renewal.certificate.encode())
            key = present.public_key()
            assert isinstance(key, ec.EllipticCurvePublicKey)
            try:
                key.verify(base64.b64decode(renewal.signature), renewal_text(renewal.csr), ec.ECDSA(hashes.SHA256()))
            except InvalidSignature:
                return 403, b'{"title": "not your key"}'
            said_now = self.identity(renewal.csr)
            good = self.signer.sign(
                RenewAnswer(node=NODE, certificate=said_now.certificate, ca=said_now.ca, keys=said_now.keys)
            ).payload
        else:
            return 404, b'{"title": "no such claim"}'
        return self.answer(200, good)

    @contextmanager
    def open(self) -> Iterator["Gateway"]:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                reply = gateway.reply(self.path, self.rfile.read(int(self.headers["Content-Length"])))
                if reply is None:  # the hill is in between
                    self.close_connection = True
                    return
                self.send_response(reply[0])
                self.send_header("Content-Length", str(len(reply[1])))
                self.end_headers()
                self.wfile.write(reply[1])

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(HTTPServer):
            def handle_error(self, *_: object) -> None:
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        with Quiet(("127.0.0.1", 0), Handler) as server:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            self.url = f"https://127.0.0.1:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with Gateway(tmp_path / "town").open() as one:
        yield one


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def contents(state: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (state / "identity").iterdir()}


# The claim


def test_a_claimed_node_has_all_it_needs_to_work(gateway: Gateway, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["claim", CODE, "--gateway", gateway.url, "--state", str(state)]) == 0
    assert "This is node kitayama-03 now" in capsys.readouterr().out
    config = load(state / "edge.toml")
    make_client(config.broker, NODE)  # key, certificate and authority can be used
    assert config.node.state == state
    assert config.broker.url == "mqtts://127.0.0.1:8883"
    assert config.device["trap-11"].type == "reed_trap"
    assert config.media is not None
    assert (config.media.url, config.media.token_file.read_text()) == (gateway.url, TOKEN)
    assert config.remote is not None
    assert identity.keys_in(config.remote.keys_file) == [gateway.signer.public]


def test_whoever_claims_beside_a_running_agent_is_told_to_restart_it(
    gateway: Gateway, state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "ask", lambda folder: {"up": True} if folder == state else None)
    assert cli.main(["claim", CODE, "--gateway", gateway.url, "--state", str(state)]) == 0
    assert "restart it (sudo systemctl restart satomori-edge)" in capsys.readouterr().out


def test_nobody_else_on_the_machine_can_read_the_key(gateway: Gateway, state: Path) -> None:
    before = os.umask(0)
    try:
        identity.claim(CODE, gateway.url, state)
    finally:
        os.umask(before)
    folder = (state / "identity").resolve()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
def test_an_identity_that_root_claims_or_renews_in_the_agents_folder_belongs_to_the_agent(gateway: Gateway, state: Path) -> None:
    state.mkdir()
    os.chown(state, 1234, 1234)
    identity.claim(CODE, gateway.url, state)
    identity.renew(state, gateway.url, NODE, clock="sync")
    folder = (state / "identity").resolve()
    assert {path.stat().st_uid for path in (folder, *folder.iterdir())} == {1234}


def test_neither_the_code_nor_the_key_travels(gateway: Gateway, state: Path) -> None:
    identity.claim(CODE, gateway.url, state)
    ((path, body),) = gateway.asked
    key = (state / "identity" / "key.pem").read_bytes().splitlines()[1]
    assert path == "/api/v1/claims/7K3M"
    assert key not in body
    assert b"9QWX" not in body


@pytest.mark.parametrize(("pin", "button"), [(26, 26), (17, None)])
def test_a_box_with_a_button_is_claimed_with_it_unless_its_first_devices_need_that_pin(
    pin: int, button: int | None, gateway: Gateway, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    argv = ["claim", CODE, "--gateway", gateway.url, "--state", str(state), "--self-test-pin", str(pin)]
    assert cli.main(argv) == 0
    made = load(state / "edge.toml")
    assert (made.self_test and made.self_test.pin, list(made.device)) == (button, ["trap-11"])
    assert ("device.trap-11.pin: 17 belongs to self_test already" in caplog.text) is (button is None)


def test_the_qr_code_says_where_to(gateway: Gateway, state: Path) -> None:
    assert cli.main(["claim", f"satomori:claim?u={gateway.url}&c={CODE}", "--state", str(state)]) == 0


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("7K3M-9QWX", "not 16 letters and digits"),
        ("", "not 16 letters and digits"),
        ("satomori:claim?c=7K3M", "is not of the form satomori:claim?u="),
        (CODE, "--gateway: say https://host:port"),
    ],
)
def test_a_code_that_is_none_ends_with_2(code: str, text: str, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["claim", code, "--state", str(state)]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "gateway.local", "https://", "https://a:b", f"https://{'a' * 70}.example", "https://a b:1"]
)
def test_an_address_that_is_none_ends_with_2(url: str, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["claim", CODE, "--gateway", url, "--state", str(state)]) == 2
    assert url in capsys.readouterr().err


def test_a_code_that_the_gateway_does_not_know_ends_with_2(
    gateway: Gateway, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown, expired, used and mistyped look the same from here."""
    assert cli.main(["claim", "7K3M-9QWX-2B4D-AAAA", "--gateway", gateway.url, "--state", str(state)]) == 2
    assert "does not take this code (404). It may be mistyped" in capsys.readouterr().err
    assert not (state / "edge.toml").exists()


def problem(status: int, detail: str) -> Callable[[int, bytes], Answer]:
    return lambda *_: (status, json.dumps({"title": "No", "detail": detail}).encode())


def test_what_the_gateway_says_of_a_refusal_is_not_said_twice(
    gateway: Gateway, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.answer = problem(403, "This code is not known here: it may be mistyped.")
    assert cli.main(["claim", CODE, "--gateway", gateway.url, "--state", str(state)]) == 2
    assert capsys.readouterr().err.count("mistyped") == 1
    gateway.answer = lambda status, body: (status, body)
    assert identity.claim(CODE, gateway.url, state) == NODE
    gateway.answer = problem(429, "This node got a certificate within the last hour. Try again in 3461 s.")
    assert cli.main(["renew", str(state / "edge.toml")]) == 1
    assert capsys.readouterr().err.endswith("can't answer now (429). This node got a certificate within the last hour. "
                                            "Try again in 3461 s.\n")  # fmt: skip


def test_a_box_that_claims_once_more_with_its_own_code_learns_that_all_is_done(
    gateway: Gateway, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identity.claim(CODE, gateway.url, state)
    before = contents(state)
    gateway.answer = problem(409, "This code was used already, with another key. If that was not this box, revoke the node.")
    assert cli.main(["claim", CODE, "--gateway", gateway.url, "--state", str(state)]) == 2
    assert "This box is node kitayama-03 already, and stays it" in capsys.readouterr().err
    assert contents(state) == before


@pytest.mark.parametrize("status", [429, 503])
def test_a_gateway_that_is_busy_is_no_fault_of_the_code(
    status: int, gateway: Gateway, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.answer = lambda *_: (status, b"")
    assert cli.main(["claim", CODE, "--gateway", gateway.url, "--state", str(state)]) == 1
    assert f"can't answer now ({status})" in capsys.readouterr().err


def test_a_gateway_that_is_not_there_ends_with_1(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["claim", CODE, "--gateway", f"https://127.0.0.1:{free_port()}", "--state", str(state)]) == 1
    assert "can't be reached" in capsys.readouterr().err


def tampered(_status: int, body: bytes) -> Answer:
    said = json.loads(body)
    return 200, json.dumps(said | {"body": said["body"].replace("8883", "1883")}).encode()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (tampered, "was not made by who knows this code"),
        (lambda *_: (200, b"<html>Welcome to the hotel</html>"), "no satomori gateway"),
        (lambda *_: (200, b""), "no satomori gateway"),
        (lambda *_: (200, b"{" * 300_000), "no satomori gateway"),
        (lambda *_: (403, b"[" * 100_000), "does not take this code (403)"),
    ],
    ids=["tampered", "captive portal", "empty", "endless", "deep"],
)
def test_an_answer_that_cannot_be_believed_ends_with_2_and_leaves_nothing(
    answer: Callable[[int, bytes], Answer], text: str, gateway: Gateway, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.answer = answer
    assert cli.main(["claim", CODE, "--gateway", gateway.url, "--state", str(state)]) == 2
    assert text in capsys.readouterr().err
    assert [path.name for path in state.iterdir()] == ["claiming"]


def test_a_certificate_for_another_key_is_refused(gateway: Gateway, state: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()

    def wrong(_status: int, _body: bytes) -> Answer:
        request = ClaimRequest.model_validate_json(gateway.asked[-1][1])
        said = gateway.identity(request.csr).model_copy(update={"certificate": gateway.authority.issue(NODE, other)})
        text = said.model_dump_json()
        return 200, encode(ClaimAnswer(body=text, mac=claim_mac(CODE, "answer", text, request.nonce)))

    gateway.answer = wrong
    with pytest.raises(identity.ClaimRefused, match="the certificate is for another key"):
        identity.claim(CODE, gateway.url, state)


def test_a_lost_answer_costs_no_code(gateway: Gateway, state: Path) -> None:
    """The same key, nonce and request again: the gateway can tell that it is the same node."""
    gateway.answer = lambda *_: None
    with pytest.raises(identity.Unreachable):
        identity.claim(CODE, gateway.url, state)
    gateway.answer = lambda status, body: (status, body)
    assert identity.claim(CODE, gateway.url, state) == NODE
    first, second = gateway.asked
    assert first == second
    assert not (state / "claiming").exists()


def test_a_power_cut_after_the_answer_was_written_needs_no_code_again(
    gateway: Gateway, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = identity._turn

    def cut(link: Path, target: Path) -> None:
        if link.name == "edge.toml":
            raise KeyboardInterrupt
        turn(link, target)

    monkeypatch.setattr(identity, "_turn", cut)
    with pytest.raises(KeyboardInterrupt):
        identity.claim(CODE, gateway.url, state)
    monkeypatch.undo()
    gateway.answer = lambda *_: (404, b"")  # used
    assert identity.claim(CODE, gateway.url, state) == NODE
    assert load(state / "edge.toml").node.name == NODE


def test_after_a_claim_the_clock_begins_no_earlier_than_the_gateways_time(gateway: Gateway, state: Path) -> None:
    identity.claim(CODE, gateway.url, state)
    without_battery = VirtualClock(0, SystemClock().now().mono_us)
    assert Timekeeper(state, boot_id(), without_battery, lambda: False, image_us=0).now().utc_us >= NOW_US
    (state / FILE).write_text(json.dumps({"boot": boot_id(), "mono_us": 1, "zero_us": 1, "synced": True}))
    remember(state, NOW_US)
    assert json.loads((state / FILE).read_bytes())["synced"]  # what was right in this boot stays


def test_what_another_gateway_said_from_afar_ends_with_its_identity(gateway: Gateway, state: Path) -> None:
    """A node that moves to another town would run the old one's devices at the old one's broker, and take the new town's first
    revisions for old ones."""
    state.mkdir()
    said = Document(
        sha256="0" * 64,
        statement=Desired(
            node=NODE, revision=7, device={"old": {"type": "node_health"}}, broker=RemoteBroker(url="mqtts://old.example:8883")
        ),
    )
    (state / "twin.json").write_text(Memory(applied=said, seen=7).model_dump_json())
    expected = ExpectedTags(state / "expected.json")
    expected.update(Expected(node=NODE, revision=90, tags=[]))
    identity.claim(CODE, gateway.url, state)
    base = load(state / "edge.toml")
    twin = Twin(state / "twin.json")
    assert twin.start(base) == base
    assert twin.memory.seen == 0
    assert ExpectedTags(state / "expected.json").revision == 0


@pytest.mark.parametrize("at", ["replace", "fsync", "symlink_to"])
def test_a_claim_that_is_cut_short_leaves_the_working_identity(
    at: str, gateway: Gateway, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity.claim(CODE, gateway.url, state)
    before, asked = contents(state), len(gateway.asked)

    def fails(*_: object, **__: object) -> None:
        if len(gateway.asked) > asked:
            raise OSError("the card is full")
        real(*_, **__)

    owner: Any = os if at == "fsync" else Path
    real = getattr(owner, at)
    monkeypatch.setattr(owner, at, fails)
    with pytest.raises(OSError, match="the card is full"):
        identity.claim(CODE, gateway.url, state)
    monkeypatch.undo()
    assert contents(state) == before
    identity.claim(CODE, gateway.url, state)
    assert contents(state)["key.pem"] != before["key.pem"]
    assert len(list(state.glob("identity-*"))) == 1


def test_devices_that_this_version_cannot_run_do_not_cost_the_identity(
    gateway: Gateway, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.device = {"trap-11": {"type": "of_next_year"}}
    identity.claim(CODE, gateway.url, state)
    assert list(load(state / "edge.toml").device) == ["node"]
    assert "device.trap-11" in caplog.text
    assert "of_next_year" in caplog.text


def test_an_edge_toml_of_somebodys_own_is_kept_beside(gateway: Gateway, state: Path) -> None:
    state.mkdir()
    (state / "edge.toml").write_text("# mine")
    identity.claim(CODE, gateway.url, state)
    (mine,) = state.glob("edge.toml.before-*")
    assert mine.read_text() == "# mine"


@pytest.mark.parametrize(
    "pasted",
    [
        '[device]\neast = { type = "beam_pair", pin_a = 22, pin_b = 23 }\n',
        '[device.tags]\ntype = "ble_tags"\n\n[device.tags.bthome_tags.ume]\nbindkey_file = "ume.key"\n',
    ],
)
def test_the_edge_toml_of_a_claim_reads_as_the_examples_do_and_takes_them_in(gateway: Gateway, state: Path, pasted: str) -> None:
    gateway.device["trap-11"]["debounce_ms"] = 300
    gateway.device["radio"] = {
        "type": "lora_traps", "port": "/dev/ttyS0", "key_file": "/x/key", "trap": {"t-1": {"address": 1}}
    }  # fmt: skip
    identity.claim(CODE, gateway.url, state)
    text = (state / "edge.toml").read_text().replace(str(state), "/var/lib/satomori")
    for section in ("node", "broker", "media", "remote", "device.trap-11", "device.radio", "device.radio.trap.t-1"):
        assert f"\n[{section}]\n" in text
    assert '\ntype = "reed_trap"\n' in text
    assert "\npin = 17\n" in text
    assert max(map(len, text.splitlines())) <= 130
    assert len(tomllib.loads(f"{text}\n{pasted}")["device"]) == 3


values = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=5), values, max_size=3))
def test_every_json_becomes_toml_that_says_the_same(document: dict[str, Any]) -> None:
    assert tomllib.loads(identity.toml(document)) == document


# Renewal


@pytest.fixture
def claimed(gateway: Gateway, state: Path) -> Path:
    identity.claim(CODE, gateway.url, state)
    return state


def test_a_renewal_brings_another_key_and_certificate_and_keeps_the_rest(claimed: Path, gateway: Gateway) -> None:
    path = claimed / "edge.toml"
    path.write_text(path.read_text() + "# a note of somebody's\n")
    before = contents(claimed)
    assert cli.main(["renew", str(path)]) == 0
    after = contents(claimed)
    assert {name for name in after if after[name] != before[name]} == {"key.pem", "certificate.pem"}
    make_client(load(path).broker, NODE)  # they fit


def test_a_lost_answer_costs_no_renewal(claimed: Path, gateway: Gateway) -> None:
    """The gateway gives one an hour; the same request again is the same one."""
    gateway.answer = lambda *_: None
    with pytest.raises(identity.Unreachable):
        identity.renew(claimed, gateway.url, NODE, clock="sync")
    gateway.answer = lambda status, body: (status, body)
    identity.renew(claimed, gateway.url, NODE, clock="sync")
    _, first, second = (RenewRequest.model_validate_json(body).csr if "renew" in path else "" for path, body in gateway.asked)
    assert first == second
    assert not (claimed / "renewing").exists()


def test_an_expired_certificate_renews_itself(gateway: Gateway, state: Path) -> None:
    gateway.ends = -DAY / 2
    identity.claim(CODE, gateway.url, state)
    gateway.ends = 365 * DAY
    made = identity.renew(state, gateway.url, NODE, clock="sync")
    assert made.ends_s > dt.datetime.now(dt.UTC).timestamp()


def forged(gateway: Gateway, tmp_path: Path) -> Callable[[int, bytes], Answer]:
    other = Signer.make(tmp_path / "other.pem")

    def answer(_status: int, body: bytes) -> Answer:
        return 200, other.sign(RenewAnswer.model_validate(json.loads(body)["statement"])).payload

    return answer


@pytest.mark.parametrize(
    ("how", "text"),
    [("forged", "which this node was never given"), ("revoked", "Was it revoked?"), ("garbage", "no signed message")],
)
def test_a_renewal_that_fails_leaves_the_identity_as_it_was(
    how: str, text: str, claimed: Path, gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(claimed)
    gateway.answer = {
        "forged": forged(gateway, tmp_path), "revoked": lambda *_: (403, b""), "garbage": lambda *_: (200, b"\xff"),
    }[how]  # fmt: skip
    assert cli.main(["renew", str(claimed / "edge.toml")]) == 2
    assert text in capsys.readouterr().err
    assert contents(claimed) == before


def test_a_renewal_believes_only_its_own_authority(claimed: Path, gateway: Gateway, tmp_path: Path) -> None:
    """Not as at the claim: now it has one."""
    with (
        Gateway(tmp_path / "impostor").open() as impostor,
        pytest.raises(identity.Unreachable, match="certificate verify failed"),
    ):
        identity.renew(claimed, impostor.url, NODE, clock="unsync")
    assert impostor.asked == []


def test_a_node_that_was_never_claimed_has_nothing_to_renew(state: Path) -> None:
    with pytest.raises(ConfigError, match="satomori-edge claim CODE"):
        identity.renew(state, "https://127.0.0.1:1", NODE, clock="sync")


class Clock:
    """Stands `days` after now."""

    def __init__(self, days: float) -> None:
        self.days = days

    def now(self) -> Instant:
        return Instant(int((dt.datetime.now(dt.UTC).timestamp() + self.days * 86_400) * 1e6), 0)

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


def keeper(claimed: Path, gateway: Gateway, days: float, told: list[str]) -> identity.Renewal:
    return identity.Renewal(
        claimed, gateway.url, NODE, Clock(days), lambda: "sync", random.Random(1), lambda: told.append("renewed")
    )


@pytest.mark.parametrize(("days", "due"), [(0, False), (200, False), (260, True), (400, True)])
def test_it_is_renewed_when_less_than_a_third_of_its_life_is_left(
    days: float, due: bool, claimed: Path, gateway: Gateway
) -> None:
    told: list[str] = []
    assert asyncio.run(keeper(claimed, gateway, days, told).look()) is due
    assert told == ["renewed"] * due  # the link must show the new one
    assert len(gateway.asked) == 1 + due


def test_a_renewal_that_can_not_be_had_is_said_once_and_tried_again(
    claimed: Path, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    renewal = keeper(claimed, gateway, 300, [])
    gateway.answer = lambda *_: (503, b"")
    assert [asyncio.run(renewal.look()) for _ in range(3)] == [False, False, False]
    assert caplog.text.count("can't be renewed") == 1
    gateway.answer = lambda status, body: (status, body)
    assert asyncio.run(renewal.look())


def test_a_node_from_a_season_in_storage_is_renewed_within_minutes_of_knowing_the_time(claimed: Path, gateway: Gateway) -> None:
    """Its certificate has ended, and by the last time that it knows, it has not; the Wi-Fi takes half an hour to come."""

    async def tale() -> tuple[int, float]:
        now_us = int(dt.datetime.now(dt.UTC).timestamp() * 1e6)
        clock, renewed, state = VirtualClock(now_us), asyncio.Event(), ["unsync"]
        renewal = identity.Renewal(
            claimed, gateway.url, NODE, clock, lambda: state[0], random.Random(1), renewed.set
        )  # fmt: skip
        running = asyncio.ensure_future(renewal.run())
        await clock.advance(1800)
        asked = len(gateway.asked)
        clock.step_utc(400 * 86_400_000_000)
        state[0] = "sync"
        await clock.advance(2 * identity.FIRST_LOOK_S)
        await asyncio.wait_for(renewed.wait(), 10)
        running.cancel()
        return asked, clock.now().mono_us / 1e6

    assert asyncio.run(tale()) == (1, 1800 + 2 * identity.FIRST_LOOK_S)
