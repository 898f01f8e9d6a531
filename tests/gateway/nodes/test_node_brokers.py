"""Who is a node, as real brokers see it: told by files and SIGHUP, while they run."""

import os
import queue
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from paho.mqtt.client import Client, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from edge.contract.names import is_name
from edge.contract.remote import Identity
from edge.contract.topics import Channel, Topic, topic_for, up_filters
from gateway.core import broker_of
from gateway.ingest import GatewayBrokerConfig
from gateway.nodes import claims
from gateway.nodes import ended as ended_module
from gateway.nodes.brokers import Brokers, nats_nodes
from gateway.nodes.care import open_care
from gateway.nodes.ended import Ended
from simulators.ports import free_port
from tests.gateway.nodes.boxes import HOUR_US, Box, Town, node_tls, town
from tests.services import listening, require_binary, running

WAIT_S = 20
NODE, OTHER = "kitayama-03", "minamisawa"
LIVE, ACK, BIRTH = (topic_for(Topic(NODE, channel)) for channel in (Channel.LIVE, Channel.ACK, Channel.BIRTH))
COMMAND = topic_for(Topic(NODE, Channel.COMMAND, "c-1"))
DOWN = LIVE.replace("up/live", "down/#")
ELSEWHERE = topic_for(Topic(OTHER, Channel.LIVE))


class Running(NamedTuple):
    """A broker that goes by a town's files."""

    town: Town
    brokers: Brokers
    port: int
    process: subprocess.Popen[bytes]


def nats_conf(home: Path, port: int) -> tuple[list[str | Path], Path]:
    """NATS reads `include` relative to its own file, so the files of the authority are named that way."""
    pid = home / "broker.pid"
    authority = home / "authority"
    (home / "broker.conf").write_text(
        f"""
server_name: "of-a-test"
listen: "127.0.0.1:-1"
pid_file: "{pid}"
jetstream {{ store_dir: "{home / "data"}" }}
mqtt {{
  host: "127.0.0.1"
  port: {port}
  tls {{
    cert_file: "{authority}/broker.pem"
    key_file: "{authority}/broker-key.pem"
    ca_file: "{authority}/ca.pem"
    verify_and_map: true
  }}
}}
authorization {{ include "authority/nats-nodes.conf" }}
"""
    )
    program = Path(sys.executable).parent / "nats-server"
    return [program if program.exists() else require_binary("nats-server"), "-c", home / "broker.conf"], pid


def mosquitto_conf(home: Path, port: int) -> tuple[list[str | Path], Path]:
    pid, authority = home / "broker.pid", home / "authority"
    user = "user root\n" if os.geteuid() == 0 else ""
    (home / "acl").write_text(
        "user gateway\ntopic read satomori/v1/+/+/up/#\ntopic write satomori/v1/+/+/down/#\n"
        "topic write satomori/v1/+/canary/up/live\n"
        "pattern write satomori/v1/+/%u/up/#\npattern read satomori/v1/+/%u/down/#\n"
    )
    (home / "acl").chmod(0o600)
    (home / "broker.conf").write_text(
        f"""{user}pid_file {pid}
listener {port} 127.0.0.1
cafile {authority}/ca.pem
certfile {authority}/broker.pem
keyfile {authority}/broker-key.pem
crlfile {authority}/crl.pem
require_certificate true
use_identity_as_username true
acl_file {home / "acl"}
"""
    )
    return [require_binary("mosquitto"), "-c", home / "broker.conf"], pid


@contextmanager
def started(home: Path, conf: Callable[[Path, int], tuple[list[str | Path], Path]]) -> Iterator[Running]:
    with town(home) as made:
        port = free_port()
        argv, pid = conf(home, port)
        with running(argv, lambda: listening(port) and pid.exists() and bool(pid.read_text().strip())) as process:
            brokers = Brokers(made.state, made.care.authority, pid, lambda: made.now_us)
            assert brokers.tell() is None
            yield Running(made, brokers, port, process)


NATS = pytest.param(nats_conf, id="nats")
MOSQUITTO = pytest.param(mosquitto_conf, id="mosquitto", marks=pytest.mark.services)


@pytest.fixture(params=[NATS, MOSQUITTO])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    with started(tmp_path, request.param) as made:
        yield made


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Running]:
    with started(tmp_path, nats_conf) as made:
        yield made


class Session:
    """A client with a certificate: MQTT 3.1.1, QoS 1, a session that lasts."""

    def __init__(self, broker: Running, files: tuple[Path, Path], client_id: str) -> None:
        self.got: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.gone: queue.Queue[bool] = queue.Queue()
        self._answers: queue.Queue[bool] = queue.Queue()
        self._granted: queue.Queue[bool] = queue.Queue()
        self._client = client = Client(CallbackAPIVersion.VERSION2, client_id, clean_session=False, protocol=MQTTv311)
        client.tls_set_context(node_tls(broker.town.folder, *files))
        client.reconnect_delay_set(60)
        client.on_connect = lambda _c, _u, _f, code, _p: self._answers.put(not code.is_failure)
        client.on_disconnect = lambda *_: (self.gone.put(True), self._answers.put(False))[1]  # type: ignore[func-returns-value]
        client.on_subscribe = lambda _c, _u, _m, codes, _p: self._granted.put(not codes[0].is_failure)
        client.on_message = lambda _c, _u, message: self.got.put((message.topic, bytes(message.payload)))
        try:
            client.connect("localhost", broker.port)
        except (ssl.SSLError, OSError):
            self.accepted = False  # TLS 1.2 says so at once, 1.3 with the first packet
            return
        client.loop_start()
        self.accepted = self._answers.get(timeout=WAIT_S)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def hear(self, topic: str) -> bool:
        self._client.subscribe(topic, qos=1)
        return self._granted.get(timeout=WAIT_S)

    def say(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, qos=1).wait_for_publish(WAIT_S)

    def next(self) -> tuple[str, bytes]:
        return self.got.get(timeout=WAIT_S)


def claimed(broker: Running, name: str, home: Path) -> tuple[Box, Identity, tuple[Path, Path]]:
    box = Box()
    identity = box.claimed(broker.town, broker.town.code(name))
    assert broker.brokers.tell(anyway=True) is None
    return box, identity, box.files(home, identity.certificate)


def gateway_of(broker: Running) -> Session:
    folder = broker.town.folder
    return Session(broker, (folder / "gateway.pem", folder / "gateway-key.pem"), "satomori-gateway")


def until_accepted(broker: Running, files: tuple[Path, Path], client_id: str, *, accepted: bool = True) -> Session:
    """A broker takes a moment to read its files again after SIGHUP."""
    deadline = time.monotonic() + WAIT_S
    while True:
        session = Session(broker, files, client_id)
        if session.accepted is accepted or time.monotonic() > deadline:
            return session
        session.__exit__()


def test_a_claimed_node_works_at_once_and_only_for_itself(broker: Running, tmp_path: Path) -> None:
    with gateway_of(broker) as gateway:
        assert gateway.accepted
        assert gateway.hear(up_filters()[0])
        _, _, files = claimed(broker, NODE, tmp_path)
        with until_accepted(broker, files, NODE) as node:
            assert node.accepted
            assert node.hear(DOWN)
            node.say(BIRTH, b"here I am")
            assert gateway.next() == (BIRTH, b"here I am")
            for topic, payload in ((ACK, b"an ack"), (COMMAND, b"a command")):
                gateway.say(topic, payload)
                assert node.next()[1] == payload
                while not node.got.empty():
                    node.got.get()  # NATS gives what a kept session subscribed to twice, once more
            node.say(ELSEWHERE, b"a lie")
            node.say(ACK, b"an ack of its own")
            node.say(LIVE, b"the truth")
            assert gateway.next() == (LIVE, b"the truth")
            assert gateway.got.empty()


def test_a_revoked_node_comes_in_no_more_and_the_others_stay(broker: Running, tmp_path: Path) -> None:
    _, _, gone_files = claimed(broker, NODE, tmp_path)
    _, _, stays_files = claimed(broker, OTHER, tmp_path)
    with gateway_of(broker) as gateway, until_accepted(broker, stays_files, OTHER) as stays:
        assert gateway.hear(up_filters()[0])
        until_accepted(broker, gone_files, NODE).__exit__()
        claims.revoke(broker.town.state, NODE, "stolen", broker.town.now_us)
        assert broker.brokers.tell() is None
        with until_accepted(broker, gone_files, NODE, accepted=False) as gone:
            assert not gone.accepted
        stays.say(ELSEWHERE, b"still here")
        assert gateway.next() == (ELSEWHERE, b"still here")
        assert stays.gone.empty()
        assert gateway.gone.empty()


def test_on_nats_a_revoked_node_is_cut_off_in_mid_session(nats: Running, tmp_path: Path) -> None:
    _, _, files = claimed(nats, NODE, tmp_path)
    with until_accepted(nats, files, NODE) as node:
        assert node.accepted
        claims.revoke(nats.town.state, NODE, "stolen", nats.town.now_us)
        nats.brokers.tell()
        assert node.gone.get(timeout=WAIT_S)


def test_replaced_hardware_comes_in_no_more_under_the_same_name(broker: Running, tmp_path: Path) -> None:
    _, _, old = claimed(broker, NODE, tmp_path)
    until_accepted(broker, old, NODE).__exit__()
    _, _, new = claimed(broker, NODE, tmp_path)
    with until_accepted(broker, old, NODE, accepted=False) as gone:
        assert not gone.accepted
    with until_accepted(broker, new, NODE) as node:
        assert node.accepted


def test_a_renewed_node_comes_in_with_either(broker: Running, tmp_path: Path) -> None:
    broker.town.now_us -= 2 * HOUR_US
    box, identity, first = claimed(broker, NODE, tmp_path)
    broker.town.now_us += 2 * HOUR_US
    second = box.files(tmp_path, box.renewed(broker.town, identity).certificate)
    broker.brokers.tell(anyway=True)
    for files in (second, first):
        with until_accepted(broker, files, NODE) as node:
            assert node.accepted


def test_on_nats_nobody_hears_or_fills_everybodys_stream(nats: Running, tmp_path: Path) -> None:
    _, _, files = claimed(nats, NODE, tmp_path)
    with gateway_of(nats) as gateway, until_accepted(nats, files, NODE) as node:
        assert gateway.hear(up_filters()[0])
        for topic in ("#", "satomori/v1/+/+/up/#", "$MQTT/msgs/#", "$MQTT/sub/#", topic_for(Topic(OTHER, Channel.ACK))):
            assert not node.hear(topic), topic
        node.say("$MQTT/msgs/" + ELSEWHERE, b"a lie by the back door")
        node.say(LIVE, b"the truth")
        assert gateway.next() == (LIVE, b"the truth")


# --- The signal -------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Town]:
    with town(tmp_path) as made:
        yield made


def told_by(here: Town, pid_file: Path) -> str:
    return str(Brokers(here.state, here.care.authority, pid_file, lambda: here.now_us).tell(anyway=True))


def test_a_stale_pid_file_hangs_up_nobody_elses_program(here: Town, tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (tmp_path / "pid").write_text(f"{bystander.pid}\n")
        assert "and no broker" in told_by(here, tmp_path / "pid")
        assert bystander.poll() is None
    finally:
        bystander.communicate(b"\n", timeout=WAIT_S)
    assert bystander.returncode == 0


def test_a_broker_that_does_not_run_reads_the_files_when_it_starts(here: Town, tmp_path: Path) -> None:
    assert told_by(here, tmp_path / "pid") == "None"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(WAIT_S)
    (tmp_path / "pid").write_text(f"{ended.pid}\n")
    assert told_by(here, tmp_path / "pid") == "None"


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "1", "12 13", "9" * 40])
def test_a_pid_file_with_something_else_in_it(here: Town, tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    assert "nodes.broker_pid_file" in told_by(here, tmp_path / "pid")


def test_a_broker_that_can_t_be_told_is_said_once_and_told_later(
    here: Town, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung_up: list[Path] = []
    (tmp_path / "pid").write_text("no number")
    brokers = Brokers(here.state, here.care.authority, tmp_path / "pid", lambda: here.now_us)
    Box().claimed(here, here.code())
    assert brokers.tell(anyway=True)
    assert brokers.tell()
    assert len(caplog.records) == 1
    monkeypatch.setattr("gateway.nodes.brokers._hang_up", hung_up.append)
    assert brokers.tell() is None
    assert hung_up == [tmp_path / "pid"], "although the files had been written before"
    assert brokers.tell() is None
    assert len(hung_up) == 1
    assert len(caplog.records) == 2


def test_a_thief_does_not_know_the_gateways_client_id(here: Town, tmp_path: Path) -> None:
    """On NATS, who comes with it puts the gateway out, as often as they like."""
    plain = GatewayBrokerConfig(url="mqtts://localhost:8883")
    got = broker_of(plain, here.care).client_id
    assert is_name(got)
    assert broker_of(plain, open_care(here.config, here.state, lambda: here.now_us)).client_id == got, "its session waits for it"
    with town(tmp_path / "elsewhere") as other:
        assert broker_of(plain, other.care).client_id != got
    chosen = GatewayBrokerConfig(url="mqtts://localhost:8883", client_id="our-own")
    assert broker_of(chosen, here.care).client_id == "our-own"
    assert broker_of(plain, None).client_id == "satomori-gateway", "without identities everybody is everybody anyway"


def test_the_file_for_nats_names_a_certificate_and_its_nodes_own_topics() -> None:
    """NATS counts an MQTT subscription to x/# as x and x.>"""
    lines = nats_nodes([("kitayama-03", "abc1")]).splitlines()
    own = "satomori.v1.29.kitayama-03"
    assert (
        lines[-2].split()
        == (
            f'{{ user: "SERIALNUMBER=abc1,CN=kitayama-03", permissions: {{ publish: ["{own}.up.>"], '
            f'subscribe: ["{own}.down", "{own}.down.>"] }} }}'
        ).split()
    )
    assert "$MQTT" not in "".join(lines)


def test_a_node_that_is_connected_is_put_out_when_it_is_revoked_and_stays_out(broker: Running, tmp_path: Path) -> None:
    """NATS does so by itself; Mosquitto would keep the connection for as long as it lasts."""
    _, _, gone_files = claimed(broker, NODE, tmp_path)
    _, _, stays_files = claimed(broker, OTHER, tmp_path)
    folder = broker.town.folder
    ends = Ended(
        broker.town.state,
        GatewayBrokerConfig(
            url=f"mqtts://localhost:{broker.port}", ca_file=folder / "ca.pem",
            certificate_file=folder / "gateway.pem", key_file=folder / "gateway-key.pem",
        ),
    )  # fmt: skip
    with until_accepted(broker, stays_files, OTHER) as stays, until_accepted(broker, gone_files, NODE) as gone:
        assert gone.accepted
        ends.run(broker.town.now_us)
        assert gone.gone.empty(), "a good node is left alone"
        claims.revoke(broker.town.state, NODE, "stolen", broker.town.now_us)
        assert broker.brokers.tell() is None
        deadline = time.monotonic() + WAIT_S
        while gone.gone.empty() and time.monotonic() < deadline:
            broker.town.now_us += 5_000_000
            ends.run(broker.town.now_us)
        assert not gone.gone.empty()
        with until_accepted(broker, gone_files, NODE, accepted=False) as back:
            assert not back.accepted
        assert stays.gone.empty()


def test_who_was_put_out_and_came_back_before_the_broker_had_read_is_put_out_again(
    here: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_out: list[str] = []
    monkeypatch.setattr(ended_module, "put_out", lambda _broker, node: put_out.append(node))
    monkeypatch.setattr(ended_module, "takes_client_ids", lambda _broker: True)
    Box().claimed(here, here.code())
    ends = Ended(here.state, GatewayBrokerConfig(url="mqtts://localhost:1"))
    claims.revoke(here.state, NODE, "stolen", here.now_us)
    for second in range(0, 1000, 2):
        ends.run(here.now_us + second * 1_000_000)
    assert put_out == [NODE] * len(ended_module.AFTER_S)
    Box().claimed(here, here.code())
    ends.run(here.now_us + 1)
    assert len(put_out) == len(ended_module.AFTER_S), "whoever bears the name now is left alone"


def test_a_broker_that_can_t_be_asked_is_said_once_and_does_not_hold_up_other_chores(
    here: Town, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []
    failing = True

    def takes(_: object) -> bool:
        asked.append(1)
        if failing:
            raise OSError("nobody there")
        return True

    monkeypatch.setattr(ended_module, "takes_client_ids", takes)
    ends = Ended(here.state, GatewayBrokerConfig(url="mqtts://localhost:1"))
    for second in range(0, 90, 2):
        ends.run(here.now_us + second * 1_000_000)
    assert len(asked) == 3
    ends.run(here.now_us - 1)
    assert len(asked) == 4, "a clock that was set back is waited for by nobody"
    failing = False
    ends.run(here.now_us + 100_000_000)
    assert [record.levelname for record in caplog.records if "none any more" in record.message] == ["ERROR", "WARNING"]


@pytest.mark.services
def test_behind_a_listener_that_goes_by_certificates_the_gateway_says_so_and_leaves_itself_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own session would be the one that it ends."""

    def conf(home: Path, port: int) -> tuple[list[str | Path], Path]:
        argv, pid = mosquitto_conf(home, port)
        with (home / "broker.conf").open("a") as file:
            file.write("use_username_as_clientid true\n")
        return argv, pid

    with started(tmp_path, conf) as broker:
        claimed(broker, NODE, tmp_path)
        folder = broker.town.folder
        ours = GatewayBrokerConfig(
            url=f"mqtts://localhost:{broker.port}", ca_file=folder / "ca.pem",
            certificate_file=folder / "gateway.pem", key_file=folder / "gateway-key.pem",
        )  # fmt: skip
        ends = Ended(broker.town.state, ours)
        ends.run(broker.town.now_us)
        claims.revoke(broker.town.state, NODE, "stolen", broker.town.now_us)
        with gateway_of(broker) as gateway:
            for second in range(0, 600, 2):
                ends.run(broker.town.now_us + second * 1_000_000)
            assert gateway.hear(up_filters()[0])
            assert gateway.gone.empty()
    assert [record.levelname for record in caplog.records if "use_username_as_clientid" in record.message] == ["ERROR"]


# --- A session of TLS that is taken up again ----------------------------------------------------------


class TakenUp(NamedTuple):
    accepted: bool
    without_certificate: bool
    """Whether TLS went on from a session of before."""
    session: ssl.SSLSession | None


def taken_up(broker: Running, context: ssl.SSLContext, session: ssl.SSLSession | None) -> TakenUp:
    """CONNECT by hand, for paho takes no session up. A broker that says nothing is no refusal: TimeoutError."""
    try:
        with (
            socket.create_connection(("localhost", broker.port), WAIT_S) as wire,
            context.wrap_socket(wire, server_hostname="localhost", session=session) as tls,
        ):
            name = NODE.encode()
            tls.sendall(b"\x10" + bytes([12 + len(name)]) + b"\0\x04MQTT\x04\x02\0\x3c" + len(name).to_bytes(2, "big") + name)
            return TakenUp(tls.recv(4) == b"\x20\x02\0\0", bool(tls.session_reused), tls.session)
    except (ssl.SSLError, ConnectionError):
        return TakenUp(accepted=False, without_certificate=False, session=None)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
def test_who_was_revoked_does_not_come_back_by_taking_up_the_tls_session_of_before(
    broker: Running, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """Such a handshake shows no certificate again: a broker could take the one of before for good."""
    _, _, files = claimed(broker, NODE, tmp_path)
    until_accepted(broker, files, NODE).__exit__()
    context = node_tls(broker.town.folder, *files)
    context.minimum_version = context.maximum_version = version
    first = taken_up(broker, context, None)
    assert first.accepted
    assert taken_up(broker, context, first.session)[:2] == (True, True), "a good node may"
    claims.revoke(broker.town.state, NODE, "stolen", broker.town.now_us)
    assert broker.brokers.tell() is None
    until_accepted(broker, files, NODE, accepted=False).__exit__()
    assert not taken_up(broker, context, first.session).accepted
