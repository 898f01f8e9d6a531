"""The brokers' configurations of firmware_configs/gateway, each in the real server: who comes in, who hears what, what waits."""

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from edge.contract.topics import Channel, Topic, partition_of, topic_for, up_filters
from gateway.canary import CANARY
from gateway.nodes import authority
from gateway.nodes.authority import ACCOUNT as GATEWAY
from gateway.nodes.authority import Authority, Revoked
from gateway.nodes.brokers import nats_nodes
from simulators.ports import free_port
from tests.services import listening, require_binary, running

FOLDER = Path(__file__).parents[2] / "firmware_configs" / "gateway"
BROKER_FILES = "/etc/satomori-broker"
WAIT_S = 45  # NATS offers anew after 30 s what was on its way when a server of three died
SESSION = "satomori-gateway"
NODES = ("kitayama-03", "minamisawa", "stolen")
HERE, THERE = NODES[:2]


def topic(node: str, channel: Channel, id_: str | None = None) -> str:
    return topic_for(Topic(node, channel, id_))


LIVE, ACK, BIRTH, DESIRED = (topic(HERE, channel) for channel in (Channel.LIVE, Channel.ACK, Channel.BIRTH, Channel.DESIRED))
DOWN = ACK.removesuffix("ack") + "#"


NOW_US = time.time_ns() // 1000
DAY_US = 86_400_000_000


class Town:
    """A town's authority in a folder, as the gateway keeps it, with certificates of NODES as these keep theirs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority.init(folder, ["localhost", "127.0.0.1"], NOW_US - DAY_US)
        self._authority = Authority.read(folder)
        self._live: list[tuple[str, str]] = []
        self._revoked: list[Revoked] = []
        for node in NODES:
            self.issue(node)
        self._tell()

    def issue(self, node: str) -> None:
        """A certificate for the node; one that it had before stays good."""
        key = ec.generate_private_key(ec.SECP256R1())
        issued = self._authority.issue(node, key.public_key(), x509.random_serial_number(), NOW_US - DAY_US // 2, 365)
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.folder / f"{node}.pem").write_text(issued.pem, encoding="ascii")
        (self.folder / f"{node}-key.pem").write_bytes(pem)
        self._live.append((node, issued.serial))

    def revoke(self, node: str) -> None:
        """All certificates that the node has, for the broker that reads its files next."""
        self._revoked += [Revoked(serial, NOW_US) for name, serial in self._live if name == node]
        self._live = [one for one in self._live if one[0] != node]
        self._tell()

    def _tell(self) -> None:
        crl = self.folder / "crl.pem"
        crl.write_bytes(self._authority.revocations(self._revoked, NOW_US, crl.read_bytes() if crl.exists() else None))
        (self.folder / "nats-nodes.conf").write_text(nats_nodes(self._live), encoding="utf-8")


class Box(NamedTuple):
    """A broker as the files make it, on free ports and with folders of its own."""

    argv: list[str | Path]
    town: Town
    nodes_port: int
    gateway_port: int


def adapted(file: str, changes: dict[str, str]) -> str:
    """The file with what a test must have its own of; each line to change must be there."""
    text = (FOLDER / file).read_text(encoding="utf-8")
    for old, new in changes.items():
        assert re.search(rf"^ *{re.escape(old)}$", text, re.MULTILINE), f"{file} has no line {old!r} any more"
        text = text.replace(old, new)
    return text


def mosquitto(home: Path, town: Town) -> Box:
    nodes, gateway = free_port(), free_port()
    (home / "data").mkdir()
    config = adapted(
        "mosquitto.conf",
        {
            "listener 8883": f"listener {nodes} 127.0.0.1",
            "listener 8884 127.0.0.1": f"listener {gateway} 127.0.0.1",
            "acl_file /etc/mosquitto/satomori.acl": f"acl_file {FOLDER / 'mosquitto.acl'}",
            "persistence_location /var/lib/mosquitto/": f"persistence_location {home / 'data'}/",
        },
    ).replace(BROKER_FILES, str(town.folder))
    # Started by root, it would otherwise become the user `mosquitto`, who may not read here.
    (home / "broker.conf").write_text(config + ("user root\n" if os.geteuid() == 0 else ""), encoding="utf-8")
    argv: list[str | Path] = [require_binary("mosquitto"), "-c", home / "broker.conf"]
    return Box(argv, town, nodes, gateway)


def nats(home: Path, town: Town) -> Box:
    program, port = Path(sys.executable).parent / "nats-server", free_port()
    if not program.exists():
        program = require_binary("nats-server")
    config = adapted(
        "nats.conf",
        {
            'listen: "127.0.0.1:4222"': f'listen: "127.0.0.1:{free_port()}"',
            'store_dir: "/var/lib/nats"': f'store_dir: "{home / "data"}"',
            'host: "0.0.0.0"': 'host: "127.0.0.1"',
            "port: 8883": f"port: {port}",
            'ack_wait: "30s"': 'ack_wait: "2s"',  # what another one's visit left unacknowledged comes after this
        },
    ).replace(BROKER_FILES, str(town.folder))
    file = town.folder / "nats.conf"  # what it includes lies beside it
    file.write_text(config, encoding="utf-8")
    return Box([program, "-c", file], town, port, port)


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path / "authority")


@pytest.fixture(params=[nats, pytest.param(mosquitto, marks=pytest.mark.services)], ids=["nats", "mosquitto"])
def box(request: pytest.FixtureRequest, tmp_path: Path, town: Town) -> Box:
    made: Box = request.param(tmp_path, town)
    return made


@contextmanager
def started(box: Box) -> Iterator[subprocess.Popen[bytes]]:
    with running(box.argv, lambda: listening(box.nodes_port) and listening(box.gateway_port)) as process:
        yield process


class Session:
    """A client as edge and gateway are: MQTT 3.1.1 over TLS, a session that lasts, QoS 1.

    `who` names the certificate of `town` that is shown; none is shown for None.
    """

    def __init__(
        self, box: Box, who: str | None, client_id: str | None = None, *, town: Town | None = None, will: str | None = None
    ) -> None:
        folder = (town or box.town).folder
        self.got: queue.Queue[MQTTMessage] = queue.Queue()
        self.ended: queue.Queue[bool] = queue.Queue()
        self._answers: queue.Queue[bool] = queue.Queue()
        self._client = client = Client(
            CallbackAPIVersion.VERSION2, client_id or who or "nobody", clean_session=False, protocol=MQTTv311
        )
        certificate, key = (str(folder / f"{who}.pem"), str(folder / f"{who}-key.pem")) if who else (None, None)
        client.tls_set(str(box.town.folder / "ca.pem"), certificate, key)
        client.reconnect_delay_set(3600)
        if will is not None:
            client.will_set(will, b"a will", qos=1, retain=True)
        client.on_connect = lambda _c, _u, _f, code, _p: self._answers.put(not code.is_failure)
        client.on_subscribe = lambda _c, _u, _m, codes, _p: self._answers.put(all(not code.is_failure for code in codes))
        client.on_message = lambda _c, _u, message: self.got.put(message)
        client.on_disconnect = self._disconnected
        try:
            client.connect("localhost", box.gateway_port if who == GATEWAY else box.nodes_port)
        except OSError:
            self.welcome = False
        else:
            client.loop_start()
            self.welcome = self._answers.get(timeout=WAIT_S)

    def _disconnected(self, *_: object) -> None:
        # With TLS 1.3 a server refuses a certificate after the handshake: this comes in place of its CONNACK.
        self._answers.put(False)
        self.ended.put(True)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def hear(self, topic: str, qos: int = 1) -> bool:
        self._client.subscribe(topic, qos)
        return self._answers.get(timeout=WAIT_S)

    def say(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(WAIT_S)

    def push(self, topic: str, payload: bytes) -> None:
        """Says it and does not wait for an answer."""
        self._client.publish(topic, payload, qos=1)

    def vanish(self) -> None:
        """Is gone without a word, as a node whose power is cut."""
        connection = self._client.socket()
        assert isinstance(connection, socket.socket)
        connection.shutdown(socket.SHUT_RDWR)
        self.ended.get(timeout=WAIT_S)

    def next(self) -> tuple[str, bytes]:
        message = self.got.get(timeout=WAIT_S)
        return message.topic, bytes(message.payload)


def of_gateway(box: Box) -> Session:
    return Session(box, GATEWAY, SESSION)


# --- What works -------------------------------------------------------------------------------------


def test_a_node_is_heard_by_the_gateway_and_hears_its_answer(box: Box) -> None:
    with started(box), of_gateway(box) as gateway, Session(box, HERE) as node:
        assert node.hear(DOWN)
        assert gateway.hear(up_filters()[0])
        node.say(LIVE, b"a batch")
        assert gateway.next() == (LIVE, b"a batch")
        command = topic(HERE, Channel.COMMAND, "c1")
        for where in (ACK, command):
            gateway.say(where, b"to you")
            assert node.next() == (where, b"to you")


def test_the_gateway_hears_its_own_test_alarm_as_a_nodes_record(box: Box) -> None:
    """And can speak for no other node: NATS would let the message through to nobody, Mosquitto drops it."""
    with started(box), of_gateway(box) as gateway:
        assert gateway.hear(up_filters()[0])
        gateway.push(LIVE, b"as another")
        gateway.say(topic(CANARY, Channel.LIVE), b"a test")
        assert gateway.next() == (topic(CANARY, Channel.LIVE), b"a test")


def test_what_is_retained_is_kept_for_who_comes_later(box: Box) -> None:
    with started(box):
        with Session(box, HERE) as node, of_gateway(box) as gateway:
            node.say(BIRTH, b"a birth", retain=True)
            gateway.say(DESIRED, b"a wish", retain=True)
        with of_gateway(box) as gateway, Session(box, HERE) as node:
            assert gateway.hear(up_filters()[0])
            assert gateway.next() == (BIRTH, b"a birth")
            assert node.hear(DOWN)
            assert node.next() == (DESIRED, b"a wish")


def test_what_a_node_says_waits_for_an_absent_gateway_over_an_orderly_restart(box: Box) -> None:
    with started(box):
        with of_gateway(box) as gateway:
            assert gateway.hear(up_filters()[0])
        with Session(box, HERE) as node:
            node.say(LIVE, b"while nobody listened")
    with started(box), of_gateway(box) as gateway:
        assert gateway.next() == (LIVE, b"while nobody listened")


def test_two_programs_of_the_gateway_do_not_push_each_other_away(box: Box) -> None:
    with started(box), of_gateway(box) as gateway, Session(box, GATEWAY, "satomori-check") as check:
        assert gateway.hear(up_filters()[0])
        assert check.hear(up_filters()[0])
        assert gateway.ended.empty()


# --- Who comes in -----------------------------------------------------------------------------------


def test_who_has_no_certificate_of_the_town_does_not_come_in(box: Box, tmp_path: Path) -> None:
    elsewhere = Town(tmp_path / "elsewhere")
    with started(box):
        for stranger in (Session(box, None), Session(box, HERE, town=elsewhere), Session(box, GATEWAY, town=elsewhere)):
            with stranger:
                assert not stranger.welcome
        with Session(box, HERE) as node:
            assert node.welcome


def test_a_revoked_node_does_not_come_in_once_the_broker_has_read_its_files_again(box: Box) -> None:
    with started(box) as broker:
        with Session(box, "stolen") as node:
            assert node.welcome
        box.town.revoke("stolen")
        broker.send_signal(signal.SIGHUP)
        refused = False
        for _ in range(200):  # the signal is taken up in the broker's own time
            with Session(box, "stolen") as node:
                refused = not node.welcome
            if refused:
                break
        assert refused
        with Session(box, HERE) as node:
            assert node.welcome


def test_on_nats_a_revoked_node_is_put_out_at_once(tmp_path: Path, town: Town) -> None:
    box = nats(tmp_path, town)
    with started(box) as broker, Session(box, "stolen") as node, Session(box, HERE) as other:
        box.town.revoke("stolen")
        broker.send_signal(signal.SIGHUP)
        assert node.ended.get(timeout=WAIT_S)
        assert other.ended.empty()


def test_natss_own_protocol_is_closed_to_who_has_no_certificate(tmp_path: Path, town: Town) -> None:
    """A user there has no password: without certificates on this port, anybody on the machine could be the gateway."""
    box = nats(tmp_path, town)
    found = re.search(r'listen: "127\.0\.0\.1:(\d+)"', (town.folder / "nats.conf").read_text(encoding="utf-8"))
    assert found
    with started(box):
        hello = subprocess.run(
            [sys.executable, "-c", NATS_HELLO, found[1], str(town.folder / "ca.pem")],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
    assert "PONG" not in hello.stdout + hello.stderr
    assert "required" in hello.stderr  # tlsv13 alert certificate required


NATS_HELLO = """
import socket, ssl, sys
plain = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=10)
plain.recv(65536)
context = ssl.create_default_context(cafile=sys.argv[2])
with context.wrap_socket(plain, server_hostname="localhost") as tls:
    tls.sendall(b'CONNECT {"user":"gateway","pass":"","verbose":false}\\r\\nPING\\r\\n')
    print(tls.recv(65536))
"""


# --- Who hears and says what ------------------------------------------------------------------------

TEMPTING = (
    "#", "+/#", "satomori/v1/+/+/up/#", "satomori/v1/+/+/down/#", DOWN, LIVE, "$MQTT/#", "$MQTT/sub/#", "$JS/#", "$SYS/#",
    "$share/g/satomori/v1/+/+/up/#", f"$share/g/{ACK}", f"$share/g/{DESIRED}", f"{ACK}/#", "+/+/+/+/down/ack", "satomori/v1/#",
)  # fmt: skip


def test_a_node_hears_nothing_of_another(box: Box) -> None:
    """By what arrives: a broker may grant a forbidden subscription and then say nothing."""
    with started(box), of_gateway(box) as gateway, Session(box, HERE) as node, Session(box, THERE) as curious:
        gateway.say(DESIRED, b"a secret of before", retain=True)
        assert gateway.hear(up_filters()[0])
        assert node.hear(DOWN)
        assert node.next() == (DESIRED, b"a secret of before")
        own = topic(THERE, Channel.ACK)
        assert curious.hear(own)
        for filter_ in TEMPTING:
            for qos in (0, 1):
                curious.hear(filter_, qos)
        gateway.say(ACK, b"a secret")
        gateway.say(DESIRED, b"another", retain=True)
        node.say(LIVE, b"a third")
        assert node.next() == (ACK, b"a secret")
        assert node.next() == (DESIRED, b"another")
        assert gateway.next() == (LIVE, b"a third")
        gateway.say(own, b"yours")
        heard = curious.next()
        while not curious.got.empty():  # its own may come once for each filter that fits
            assert curious.next() == (own, b"yours")
        assert heard == (own, b"yours")


def test_a_node_says_nothing_for_another_nor_for_the_gateway(box: Box) -> None:
    with started(box), of_gateway(box) as gateway, Session(box, HERE) as node, Session(box, THERE) as liar:
        assert gateway.hear(up_filters()[0])
        assert node.hear(DOWN)
        assert liar.hear(topic(THERE, Channel.ACK))
        for lie in (LIVE, BIRTH, ACK, DESIRED, topic(THERE, Channel.ACK), f"satomori/v1/{partition_of(THERE):02d}/{THERE}/x"):
            liar.say(lie, b"a lie", retain=lie in (BIRTH, DESIRED))
        truth = topic(THERE, Channel.LIVE)
        liar.say(truth, b"the truth")
        assert gateway.next() == (truth, b"the truth")
        gateway.say(ACK, b"heard")
        assert node.next() == (ACK, b"heard")
        assert (gateway.got.qsize(), node.got.qsize(), liar.got.qsize()) == (0, 0, 0)


def test_a_last_will_too_is_for_the_node_itself_only(box: Box) -> None:
    """What a broker says when a client is gone is said in the client's name."""
    with started(box), of_gateway(box) as gateway, Session(box, HERE) as node:
        assert gateway.hear(up_filters()[0])
        assert node.hear(DOWN)
        own = topic(THERE, Channel.STATE)
        for will in (topic(HERE, Channel.STATE), LIVE, ACK, DESIRED, own):
            with Session(box, THERE, will=will) as liar:
                liar.vanish()
        assert gateway.next() == (own, b"a will")
        gateway.say(ACK, b"heard")
        assert node.next() == (ACK, b"heard")
        assert (gateway.got.qsize(), node.got.qsize()) == (0, 0)


def test_who_sends_what_no_batch_can_be_is_hung_up_on_and_heard_by_nobody(box: Box) -> None:
    with started(box), of_gateway(box) as gateway:
        assert gateway.hear(up_filters()[0])
        with Session(box, "stolen") as node:
            node.push(topic("stolen", Channel.LIVE), bytes(200_000))
            assert node.ended.get(timeout=WAIT_S)
        with Session(box, HERE) as node:
            node.say(LIVE, b"a batch")
        assert gateway.next() == (LIVE, b"a batch")


def test_who_takes_another_nodes_session_does_not_get_what_waits_in_it(box: Box) -> None:
    with started(box), of_gateway(box) as gateway:
        with Session(box, HERE) as node:
            assert node.hear(DOWN)
        gateway.say(ACK, b"while away")
        with Session(box, THERE, client_id=HERE) as thief:
            own = topic(THERE, Channel.ACK)
            assert thief.hear(own)
            gateway.say(ACK, b"while another sat there")
            gateway.say(own, b"yours")
            assert thief.next() == (own, b"yours")
            assert thief.got.empty()
        with Session(box, HERE) as node:
            heard = {node.next(), node.next()}
            assert heard == {(ACK, b"while away"), (ACK, b"while another sat there")}


@pytest.mark.services
def test_on_mosquitto_nobody_pushes_another_ones_session_away(tmp_path: Path, town: Town) -> None:
    box = mosquitto(tmp_path, town)
    with started(box), Session(box, HERE) as node, Session(box, THERE, client_id=HERE) as rude:
        assert rude.welcome
        assert node.hear(DOWN)
        assert node.ended.empty()


WITH_ID = {Channel.COMMAND, Channel.RESULT}
EVERY_TOPIC = [(node, channel) for node in (HERE, "stolen") for channel in Channel]
"""Another node's, and its own."""


def of(node: str, channel: Channel) -> str:
    return topic(node, channel, "c-1" if channel in WITH_ID else None)


def test_of_every_topic_of_the_wire_a_stolen_node_says_what_goes_up_from_itself_and_nothing_else(box: Box) -> None:
    """Said plainly and retained: who listens is the gateway, the node that it is about, and later who comes for what is kept."""
    with started(box), of_gateway(box) as gateway, Session(box, HERE) as node, Session(box, "stolen") as stolen:
        assert gateway.hear(up_filters()[0])
        assert node.hear(DOWN)
        for retain in (False, True):
            for whose, channel in EVERY_TOPIC:
                stolen.say(of(whose, channel), f"{whose} {channel}".encode(), retain=retain)
        last = topic("stolen", Channel.LIVE)
        stolen.say(last, b"the last word")
        heard = []
        while (one := gateway.next()) != (last, b"the last word"):
            heard.append(one)
        up = {channel for channel in Channel if channel.startswith("up/")}
        own = {(of("stolen", channel), f"stolen {channel}".encode()) for channel in up}
        assert set(heard) == own
        gateway.say(ACK, b"the last word")
        assert node.next() == (ACK, b"the last word")
        assert (gateway.got.qsize(), node.got.qsize()) == (0, 0)
    with started(box), Session(box, HERE, client_id=f"{HERE}-again") as node:
        # What is retained would come to who asks later.
        assert node.hear(DOWN)
        with of_gateway(box) as gateway:
            gateway.say(ACK, b"the first word")
        assert node.next() == (ACK, b"the first word")


def test_of_every_topic_of_the_wire_a_stolen_node_hears_what_comes_down_to_itself_and_nothing_else(box: Box) -> None:
    with started(box), of_gateway(box) as gateway, Session(box, HERE) as node, Session(box, "stolen") as stolen:
        for whose, channel in EVERY_TOPIC:
            stolen.hear(of(whose, channel))
        for whose, channel in EVERY_TOPIC:
            if channel.startswith("down/"):
                gateway.say(of(whose, channel), f"{whose} {channel}".encode(), retain=channel is Channel.DESIRED)
            elif whose == HERE:
                node.say(of(whose, channel), f"{whose} {channel}".encode(), retain=channel is Channel.BIRTH)
            else:
                stolen.say(of(whose, channel), f"{whose} {channel}".encode())
        last = (topic("stolen", Channel.ACK), b"the last word")
        gateway.say(*last)
        own = {(of("stolen", channel), f"stolen {channel}".encode()) for channel in Channel if channel.startswith("down/")} | {
            last
        }
        heard: set[tuple[str, bytes]] = set()
        while not own <= heard:  # NATS keeps no order between subscriptions
            heard.add(stolen.next())
        assert heard == own
        for whose, channel in EVERY_TOPIC:
            stolen.hear(of(whose, channel), qos=0)  # what is retained comes again to who asks again
        last = (last[0], b"the very last word")
        gateway.say(*last)
        while (one := stolen.next()) != last:
            assert one in own
        assert stolen.got.empty() or {stolen.next() for _ in range(stolen.got.qsize())} <= own | {last}
