"""The brokers' configurations in firmware_configs/, each in the real server: who may speak, and what waits for whom."""

import os
import queue
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from edge.contract.topics import Channel, Topic, topic_for, up_filters
from tests.services import free_port, listening, require_binary, running

FOLDER = Path(__file__).parent.parent / "firmware_configs"
WAIT_S = 20
LIVE = topic_for(Topic("kitayama-03", Channel.LIVE))
ACK = topic_for(Topic("kitayama-03", Channel.ACK))
BIRTH = topic_for(Topic("kitayama-03", Channel.BIRTH))
ELSEWHERE = topic_for(Topic("minamisawa", Channel.LIVE))


class Box(NamedTuple):
    """A broker as the files make it, on a free port and with folders of its own."""

    argv: list[str | Path]
    port: int
    node: tuple[str, str]
    gateway: tuple[str, str]


def adapted(file: str, changes: dict[str, str]) -> str:
    """The file with what a test must have its own of; each line to change must be there."""
    text = (FOLDER / file).read_text(encoding="utf-8")
    for old, new in changes.items():
        assert re.search(rf"^ *{re.escape(old)}$", text, re.MULTILINE), f"{file} has no line {old!r} any more"
        text = text.replace(old, new)
    return text


def mosquitto(home: Path) -> Box:
    program, port, passwords = require_binary("mosquitto"), free_port(), home / "passwords"
    passwords.touch(mode=0o600)
    for user in ("gateway", "kitayama-03"):
        subprocess.run([require_binary("mosquitto_passwd"), "-b", passwords, user, f"of {user}"], check=True, timeout=WAIT_S)
    (home / "data").mkdir()
    config = adapted(
        "mosquitto.conf",
        {
            "listener 1883": f"listener {port} 127.0.0.1",
            "password_file /etc/mosquitto/satomori.passwd": f"password_file {passwords}",
            "acl_file /etc/mosquitto/satomori.acl": f"acl_file {FOLDER / 'mosquitto.acl'}",
            "persistence_location /var/lib/mosquitto/": f"persistence_location {home / 'data'}/",
        },
    )
    # Started by root, it would otherwise become the user `mosquitto`, who may not read here.
    (home / "broker.conf").write_text(config + ("user root\n" if os.geteuid() == 0 else ""), encoding="utf-8")
    node, gateway = ("kitayama-03", "of kitayama-03"), ("gateway", "of gateway")
    return Box([program, "-c", home / "broker.conf"], port, node, gateway)


def nats(home: Path) -> Box:
    program, port = Path(sys.executable).parent / "nats-server", free_port()
    if not program.exists():
        program = require_binary("nats-server")
    config = adapted(
        "nats.conf",
        {
            'listen: "127.0.0.1:4222"': 'listen: "127.0.0.1:-1"',
            'store_dir: "/var/lib/nats"': f'store_dir: "{home / "data"}"',
            'host: "0.0.0.0"': 'host: "127.0.0.1"',
            "port: 1883": f"port: {port}",
        },
    )
    (home / "broker.conf").write_text(config, encoding="utf-8")
    return Box([program, "-c", home / "broker.conf"], port, ("node", "change-me-node"), ("gateway", "change-me-gateway"))


@pytest.fixture(params=[nats, pytest.param(mosquitto, marks=pytest.mark.services)], ids=["nats", "mosquitto"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Box:
    made: Box = request.param(tmp_path)
    return made


@pytest.fixture
def mosquitto_box(tmp_path: Path) -> Box:
    return mosquitto(tmp_path)


@contextmanager
def started(box: Box) -> Iterator[None]:
    with running(box.argv, lambda: listening(box.port)):
        yield


class Session:
    """A client as edge and gateway are: MQTT 3.1.1, a session that lasts, QoS 1."""

    def __init__(self, box: Box, who: tuple[str, str] | None, client_id: str) -> None:
        self.got: queue.Queue[MQTTMessage] = queue.Queue()
        self._refused: queue.Queue[bool] = queue.Queue()
        self._granted: queue.Queue[list[bool]] = queue.Queue()
        self._client = client = Client(CallbackAPIVersion.VERSION2, client_id, clean_session=False, protocol=MQTTv311)
        if who is not None:
            client.username_pw_set(*who)
        client.reconnect_delay_set(60)
        client.on_connect = lambda _c, _u, _f, code, _p: self._refused.put(code.is_failure)
        client.on_subscribe = lambda _c, _u, _m, codes, _p: self._granted.put([not code.is_failure for code in codes])
        client.on_message = lambda _c, _u, message: self.got.put(message)
        client.connect("127.0.0.1", box.port)
        client.loop_start()
        self.refused = self._refused.get(timeout=WAIT_S)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def hear(self, topic: str) -> bool:
        self._client.subscribe(topic, qos=1)
        return all(self._granted.get(timeout=WAIT_S))

    def say(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(WAIT_S)

    def next(self) -> tuple[str, bytes]:
        message = self.got.get(timeout=WAIT_S)
        return message.topic, bytes(message.payload)


def test_a_node_is_heard_by_the_gateway_and_hears_its_answer(box: Box) -> None:
    with started(box), Session(box, box.gateway, "gateway") as gateway, Session(box, box.node, "kitayama-03") as node:
        assert node.hear(ACK)
        assert gateway.hear(up_filters()[0])
        node.say(LIVE, b"a batch")
        assert gateway.next() == (LIVE, b"a batch")
        gateway.say(ACK, b"an ack")
        assert node.next() == (ACK, b"an ack")


def test_a_birth_is_kept_for_a_gateway_that_comes_later(box: Box) -> None:
    with started(box):
        with Session(box, box.node, "kitayama-03") as node:
            node.say(BIRTH, b"a birth", retain=True)
        with Session(box, box.gateway, "gateway") as gateway:
            assert gateway.hear(up_filters()[0])
            assert gateway.next() == (BIRTH, b"a birth")


def test_nobody_comes_in_without_the_password(box: Box) -> None:
    with started(box):
        for who in ((box.node[0], "a guess"), None):
            with Session(box, who, "kitayama-03") as session:
                assert session.refused


def test_what_a_node_says_waits_for_an_absent_gateway_over_an_orderly_restart(box: Box) -> None:
    with started(box):
        with Session(box, box.gateway, "gateway") as gateway:
            assert gateway.hear(up_filters()[0])
        with Session(box, box.node, "kitayama-03") as node:
            node.say(LIVE, b"while nobody listened")
    with started(box), Session(box, box.gateway, "gateway") as gateway:
        assert gateway.next() == (LIVE, b"while nobody listened")


@pytest.mark.services
def test_on_mosquitto_a_node_can_speak_only_for_itself(mosquitto_box: Box) -> None:
    box = mosquitto_box
    with started(box), Session(box, box.gateway, "gateway") as gateway, Session(box, box.node, "kitayama-03") as node:
        assert gateway.hear(up_filters()[0])
        node.say(ELSEWHERE, b"a lie")
        node.say(ACK, b"an ack of its own")
        node.say(LIVE, b"the truth")
        assert gateway.next() == (LIVE, b"the truth")
        assert gateway.got.empty()
