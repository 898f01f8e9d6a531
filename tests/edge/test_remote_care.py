"""A real agent in a process of its own, cared for from afar over a real broker, and killed in between."""

import base64
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from paho.mqtt.client import Client, MQTTMessage

from edge.contract.messages import Ack, Birth, encode
from edge.contract.remote import Command, Desired, Reported, Result
from edge.contract.topics import Channel, Topic, parse, topic_for
from gateway.nodes.signing import Signer
from simulators.broker import Broker, BrokerMissingError, nats
from tests.edge.test_edge_cli import ROOT, written
from tests.edge.test_uplink import Gateway
from tests.services import REQUIRE

NODE = "kitayama-03"
WAIT_S = 30


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    try:
        made = nats(tmp_path / "broker")
    except BrokerMissingError as error:
        if os.environ.get(REQUIRE) == "1":
            raise
        pytest.skip(str(error))
    with made as running:
        yield running


class Town:
    """Answers what must be answered; keeps what is said, by channel."""

    def __init__(self, folder: Path) -> None:
        self.signer = Signer.make(folder / "signing.pem")
        (folder / "keys.json").write_text(json.dumps([base64.b64encode(self.signer.public).decode()]))
        self.births: queue.Queue[Birth] = queue.Queue()
        self.reports: queue.Queue[Reported] = queue.Queue()
        self.results: queue.Queue[Result] = queue.Queue()
        self.answering = True

    def __call__(self, client: Client, message: MQTTMessage) -> None:
        channel = parse(message.topic).channel
        if channel is Channel.BIRTH:
            birth = Birth.model_validate_json(message.payload)
            self.births.put(birth)
            if self.answering:
                client.publish(topic_for(Topic(NODE, Channel.ACK)), encode(Ack(epoch=birth.epoch, upto=0)), qos=1)
        elif channel is Channel.REPORTED:
            self.reports.put(Reported.model_validate_json(message.payload))
        elif channel is Channel.RESULT:
            self.results.put(Result.model_validate_json(message.payload))


@contextmanager
def agent(config: Path, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    argv = [sys.executable, "-c", "import sys; from edge.cli import main; sys.exit(main())", "run", str(config)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | environment) as child:
        try:
            yield child
        finally:
            child.kill()


def test_a_node_is_given_another_configuration_survives_a_kill_and_answers_a_command_once(broker: Broker, tmp_path: Path) -> None:
    town = Town(tmp_path)
    health = {"type": "node_health", "interval_s": 60}
    config = written(
        tmp_path, broker={"url": broker.url}, device={"one": health},
        remote={"keys_file": str(tmp_path / "keys.json"), "url": "https://127.0.0.1:1"},
    )  # fmt: skip
    desired = town.signer.sign(Desired(node=NODE, revision=1, device={"one": health, "two": health})).payload
    with Gateway(broker.port, answer=town) as gateway:
        with agent(config) as child:
            assert [one.device for one in town.births.get(timeout=WAIT_S).devices] == ["one"]
            town.answering = False  # so that the trial can't end before the kill
            gateway.client.publish(topic_for(Topic(NODE, Channel.DESIRED)), desired, qos=1, retain=True)
            assert town.births.get(timeout=WAIT_S).config is not None
            child.send_signal(signal.SIGKILL)
        town.answering = True
        with agent(config) as child:
            report = town.reports.get(timeout=WAIT_S)
            assert (report.revision, report.outcome, report.running) == (1, "applied", 1)
            now_us = time.time_ns() // 1000
            command = Command(
                node=NODE, id="c-1", name="restart_device", device="none", issued=now_us, expires=now_us + 60_000_000
            )
            payload = town.signer.sign(command).payload
            for _ in range(2):
                gateway.client.publish(topic_for(Topic(NODE, Channel.COMMAND, "c-1")), payload, qos=1)
            first, second = town.results.get(timeout=WAIT_S), town.results.get(timeout=WAIT_S)
            assert first == second
            assert first.state == "refused"
            child.send_signal(signal.SIGTERM)
            assert child.wait(WAIT_S) == 0


def test_systemd_hears_that_it_is_ready_and_alive(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(WAIT_S)
        manager.bind(str(tmp_path / "notify"))
        config = written(tmp_path, device={"one": {"type": "node_health"}})
        with agent(config, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="200000") as child:
            assert [manager.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
            child.send_signal(signal.SIGTERM)
            assert child.wait(WAIT_S) == 0
