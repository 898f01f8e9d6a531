"""satomori-edge check, as the person reads it who wants to leave the mountain before dark."""

import asyncio
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.client import Client, MQTTMessage

from edge import check, cli, screen, status
from edge.clock import Instant
from edge.contract.messages import Ack, Birth, encode
from edge.contract.topics import Channel, Topic, topic_for
from edge.errors import DeviceError
from edge.hardware import machine
from edge.records import Reading, Record
from edge.screen import COLUMNS, LINES, Finding, Text, _width
from edge.timekeeper import Timekeeper
from simulators.broker import Broker, BrokerMissingError, nats
from simulators.ports import free_port
from tests.edge.authority import DAY, Authority
from tests.edge.test_edge_cli import ROOT, written
from tests.edge.test_uplink import Gateway
from tests.services import REQUIRE

READING = Reading(Instant(1, 1), "trap-11", "heartbeat", 1)
NODE = "kitayama-03"


class Says:
    """A driver of one record, or of one failure; with `meets`, only once the others are there too."""

    metrics = ("heartbeat",)

    def __init__(self, what: Record | Exception | None, meets: asyncio.Barrier | None = None) -> None:
        self._what, self._meets = what, meets

    async def records(self) -> AsyncIterator[Record]:
        if self._meets is not None:
            await self._meets.wait()
        if isinstance(self._what, Exception):
            raise self._what
        if self._what is None:
            return
        yield self._what


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(check, "CONNECT_S", 5)
    monkeypatch.setattr(check, "Timekeeper", partial(Timekeeper, disciplined=lambda: True))
    root = tmp_path / "root"
    (root / "proc/net").mkdir(parents=True)
    monkeypatch.setattr(machine, "ROOT", root)
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)


def looked(
    drivers: dict[str, Says], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **changes: Any
) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and the findings by what they are of."""
    monkeypatch.setattr(check, "make_driver", lambda device, config, site: drivers[device])
    device = {name: {"type": "reed_trap", "pin": pin} for pin, name in enumerate(drivers)}
    code = cli.main(["check", "--json", "--lang", "en", str(written(folder, **({"device": device} | changes)))])
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is (code == 0)
    return code, {one["what"]: one for one in said["findings"]}


# Devices


def test_each_device_is_read_once_and_what_is_wrong_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drivers = {"a": Says(READING), "b": Says(DeviceError("no such port")), "c": Says(None), "d": Says(ValueError("bug"))}
    code, said = looked(drivers, tmp_path, monkeypatch, capsys)
    assert code == 1
    assert {name: (said[f"device.{name}"]["state"], said[f"device.{name}"]["do"]) for name in drivers} == {
        "a": ("ok", None),
        "b": ("bad", "no such port"),
        "c": ("bad", "ended without a word"),
        "d": ("bad", "its driver failed: ValueError('bug')"),
    }


def test_devices_are_read_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = asyncio.Barrier(2)
    _, said = looked({"a": Says(READING, both), "b": Says(READING, both)}, tmp_path, monkeypatch, capsys)
    assert (said["device.a"]["state"], said["device.b"]["state"]) == ("ok", "ok")


def test_a_silent_device_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(check, "READ_S", 0.05)
    _, said = looked({"a": Says(READING, asyncio.Barrier(2))}, tmp_path, monkeypatch, capsys)
    assert (said["device.a"]["state"], said["device.a"]["do"]) == ("bad", "is it switched on and wired to this port?")


def test_a_port_that_is_not_there_is_said_in_the_persons_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = {"gate": {"type": "people_counter", "port": str(tmp_path / "none")}}
    assert cli.main(["check", "--lang", "ja", str(written(tmp_path, device=device))]) == 2
    out = capsys.readouterr().out
    assert f"NG device.gate.port  {tmp_path / 'none'} がありません"[:60] in out
    assert "差し込み口とケーブルを確かめてください" in out


@pytest.mark.parametrize(
    ("device", "setting"),
    [
        ({"type": "reed_trap", "pin": 17, "tilt_pin": 18}, "pin"),
        ({"type": "trail_camera", "folder": "FILE"}, "folder"),
        ({"type": "lora_traps", "port": "FILE", "key_file": "NONE", "trap": {"t-1": {"address": 1}}}, "key_file"),
        (
            {"type": "lora_traps", "port": "FILE", "key_file": "KEY", "trap": {"t-1": {"address": 1, "key_file": "NONE"}}},
            "trap.t-1.key_file",
        ),
    ],
)
def test_a_setting_that_names_what_can_not_be_had_is_named_and_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], device: dict[str, Any], setting: str
) -> None:
    """No pin on this machine; a file where a folder should be; a key that is not there."""
    (tmp_path / "FILE").touch()
    (tmp_path / "KEY").write_text("00" * 16)
    said = json.loads(json.dumps(device).replace("FILE", str(tmp_path / "FILE")).replace("KEY", str(tmp_path / "KEY")))
    assert cli.main(["check", "--lang", "en", "--json", str(written(tmp_path, device={"a": said}))]) == 2
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert f"device.a.{setting}" in [one["what"] for one in findings if one["state"] == "bad"]


def test_a_card_that_is_not_there_is_no_matter_of_plugs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = {"cam-02": {"type": "trail_camera", "folder": str(tmp_path / "none")}}
    assert cli.main(["check", "--lang", "ja", str(written(tmp_path, device=device))]) == 2
    out = capsys.readouterr().out
    assert "カードが入っているか" in out
    assert "by-id" not in out


TOLD = {"clock": "sync", "now_us": 1, "revision": 0, "devices": ["a", "clock"], "failing": {}, "waiting": 0, "up": True,
        "answered_s": 1.0}  # fmt: skip


@pytest.mark.parametrize(
    ("device", "hint"),
    [
        ({"type": "lidar_pair", "port_a": "/dev/x", "port_b": "/dev/y", "near_cm": 200}, "差し込み口とケーブルを"),
        ({"type": "reed_trap", "pin": 17}, "ピンの番号と配線を"),
        ({"type": "trail_camera", "folder": "/media/x"}, "カードとマウントを"),
        ({"type": "pir_camera", "pin": 17}, "カメラのケーブルを"),
        ({"type": "node_health"}, "担当者に知らせてください"),
    ],
)
def test_in_japanese_a_faulty_device_has_a_hint_first_and_the_whole_detail_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], device: dict[str, Any], hint: str
) -> None:
    fault = "it can't be opened at 115200 baud: No such file or directory. Is the device plugged in, is the name right "
    fault += "(ls -l /dev/serial/by-id), is this user in the group dialout, and does nothing else use the port?"
    monkeypatch.setattr(status, "ask", lambda _: TOLD | {"failing": {"a": fault}})
    assert cli.main(["check", "--lang", "ja", str(written(tmp_path, device={"a": device}))]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "NG device.a  読めません"
    assert lines[1].startswith("   → ")
    assert hint in lines[1]
    detail = " ".join(line.strip() for line in lines[1:6])
    assert fault in detail  # no word is broken, nothing cut
    assert sum(line.startswith("   →") for line in lines[:6]) == 1


def test_the_clock_that_nobody_configured_as_a_device_has_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status, "ask", lambda _: TOLD)
    _, said = looked({"a": Says(READING)}, tmp_path, monkeypatch, capsys)
    assert "clock" in said
    assert "device.clock" not in said


@pytest.mark.parametrize("runs", [True, False])
def test_whoever_edited_edge_toml_in_vain_is_told_which_configuration_runs_and_how_to_come_back(
    runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    remote = {"url": "https://gateway.example:8443", "keys_file": str(tmp_path / "keys.json")}
    document = {"sha256": "0" * 64, "statement": {"node": NODE, "revision": 6, "device": {"b": {"type": "node_health"}}}}
    (tmp_path / "state").mkdir()
    (tmp_path / "state/twin.json").write_text(json.dumps({"applied": document, "seen": 6}))
    monkeypatch.setattr(status, "ask", lambda _: TOLD | {"revision": 6, "devices": ["b"]} if runs else None)
    _, said = looked({"a": Says(READING), "b": Says(READING)}, tmp_path, monkeypatch, capsys, remote=remote)
    assert said["configuration"]["said"] == "revision 6 from the gateway; [device] of edge.toml is not used"
    assert "satomori-edge own edge.toml" in said["configuration"]["do"]
    assert "device.a" not in said

    config = str(tmp_path / "edge.toml")
    assert cli.main(["own", config]) == (1 if runs else 0)
    out, err = capsys.readouterr()
    assert ("the agent runs" in err) if runs else ("Revision 6 from the gateway runs no more" in out)
    if not runs:
        _, said = looked({"a": Says(READING), "b": Says(READING)}, tmp_path, monkeypatch, capsys, remote=remote)
        assert "configuration" not in said
        assert "device.a" in said


# The machine


def test_a_full_disk_and_a_clock_that_was_never_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "Timekeeper", partial(Timekeeper, disciplined=lambda: False))
    monkeypatch.setattr(check, "LEAST_BYTES", 2**60)
    monkeypatch.setattr(check, "RESERVE_BYTES", 2**60)
    code, said = looked({"a": Says(READING)}, tmp_path, monkeypatch, capsys)
    assert (code, said["clock"]["state"], said["disk"]["state"]) == (1, "weak", "bad")


def test_an_outbox_that_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state" / "outbox.db").mkdir(parents=True)
    code, said = looked({"a": Says(READING)}, tmp_path, monkeypatch, capsys)
    assert (code, said["outbox"]["state"]) == (1, "bad")
    assert "outbox.db" in said["outbox"]["do"]


@pytest.mark.parametrize(
    ("begins", "ends", "state", "text"),
    [
        (-1, 300, "ok", "good for 299 days"),
        (-300, 65, "weak", "good for 64 days"),
        (-400, -1, "bad", "has expired"),
        (1, 300, "bad", "not valid yet"),
    ],
)
def test_the_nodes_certificate(
    begins: int,
    ends: int,
    state: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    authority = Authority()
    certificate, key = authority.write_pair(tmp_path, NODE, begins * DAY, ends * DAY)
    broker = {"url": f"mqtts://127.0.0.1:{free_port()}", "ca_file": str(authority.write(tmp_path)),
              "certificate_file": str(certificate), "key_file": str(key)}  # fmt: skip
    _, said = looked({"a": Says(READING)}, tmp_path, monkeypatch, capsys, broker=broker)
    assert said["certificate"]["state"] == state
    assert text in said["certificate"]["said"]
    Authority("Elsewhere").write(tmp_path)
    _, said = looked({"a": Says(READING)}, tmp_path, monkeypatch, capsys, broker=broker)
    assert "is not of the authority" in said["certificate"]["said"]


def test_a_node_that_goes_by_the_gateways_time_judges_its_certificate_by_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its machine's own clock is half a year behind, or ahead."""
    authority = Authority()
    certificate, key = authority.write_pair(tmp_path, NODE, 180 * DAY, 545 * DAY)
    broker = {"url": f"mqtts://127.0.0.1:{free_port()}", "ca_file": str(authority.write(tmp_path)),
              "certificate_file": str(certificate), "key_file": str(key)}  # fmt: skip
    now_us = (time.time_ns() // 1000) + 200 * 86_400_000_000
    running = {"clock": "sync", "now_us": now_us, "revision": 0, "devices": [], "failing": {}, "waiting": 0, "up": True,
               "answered_s": 1.0}  # fmt: skip
    monkeypatch.setattr(status, "ask", lambda _: running)
    _, said = looked({}, tmp_path, monkeypatch, capsys, broker=broker, device={"a": {"type": "node_health"}})
    assert (said["certificate"]["state"], said["certificate"]["said"]) == ("ok", "good for 344 days")


def test_a_key_that_does_not_fit_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    authority = Authority()
    certificate, _ = authority.write_pair(tmp_path, NODE)
    _, key = authority.write_pair(tmp_path, "other")
    broker = {"url": "mqtts://127.0.0.1:1", "certificate_file": str(certificate), "key_file": str(key)}
    assert cli.main(["check", str(written(tmp_path, broker=broker))]) == 2
    assert "broker.certificate_file and key_file" in capsys.readouterr().err


# The link


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


class Answering:
    """A gateway that answers births, every one or as told; keeps them."""

    def __init__(self, *refuses: int) -> None:
        self.births: list[Birth] = []
        self._refuses = refuses

    def __call__(self, client: Client, message: MQTTMessage) -> None:
        if message.topic.endswith("up/birth"):
            birth = Birth.model_validate_json(message.payload)
            self.births.append(birth)
            if len(self.births) not in self._refuses:
                client.publish(topic_for(Topic(NODE, Channel.ACK)), encode(Ack(epoch=birth.epoch, upto=0)), qos=1)


def wifi(root: Path, dbm: int) -> None:
    (root / "root/proc/net/wireless").write_text(
        "Inter-| sta-|   Quality        |   Discarded packets\n"
        " face | tus | link level noise |  nwid  crypt   frag\n"
        f" wlan0: 0000   54.  {dbm}.  -256        0      0      0\n"
    )


def test_ten_answers_of_the_gateway_are_a_good_place(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wifi(tmp_path, -56)
    answering = Answering()
    with Gateway(broker.port, answer=answering):
        code, said = looked({"a": Says(READING)}, tmp_path, monkeypatch, capsys, broker={"url": broker.url})
        assert code == 0
        assert said["gateway"]["said"].startswith("good (10 of 10 tries answered")
        assert said["signal"]["said"] == "good (-56 dBm)"
        assert [(one.device, one.metrics) for one in answering.births[0].devices] == [("a", ["heartbeat"])]
        first = answering.births[0].epoch
        looked({"a": Says(READING)}, tmp_path, monkeypatch, capsys, broker={"url": broker.url})
        assert {birth.epoch for birth in answering.births} == {first}  # the agent's own: no other life of this node is begun


def test_a_place_that_is_not_good_says_what_to_try(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wifi(tmp_path, -88)
    monkeypatch.setattr(check, "ANSWER_S", 0.5)
    with Gateway(broker.port, answer=Answering(4)):
        code, said = looked({"a": Says(READING)}, tmp_path, monkeypatch, capsys, broker={"url": broker.url})
    assert code == 0  # it works: a person may judge
    assert (said["gateway"]["state"], said["gateway"]["said"]) == ("weak", "unsteady (9 of 10 tries answered)")
    assert (said["signal"]["state"], said["signal"]["do"]) == ("weak", "try a place 2 to 3 m higher")


def test_a_gateway_that_does_not_answer_is_told_from_a_broker_that_is_away(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "ANSWER_S", 0.2)
    code, said = looked({"a": Says(READING)}, tmp_path, monkeypatch, capsys, broker={"url": broker.url})
    assert (code, said["gateway"]["said"]) == (1, "the broker is there, the gateway does not answer")
    broker.kill()
    code, said = looked({"a": Says(READING)}, tmp_path, monkeypatch, capsys, broker={"url": broker.url})
    assert (code, said["gateway"]["said"]) == (1, f"no connection: 127.0.0.1:{broker.port} refuses connections")
    assert "ask the office whether the broker runs" in said["gateway"]["do"]
    assert "aerial" not in said["gateway"]["do"]


@contextmanager
def listening(serve: Callable[[socket.socket], object]) -> Iterator[int]:
    """A port at which something other than a good broker is met."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                    connection.settimeout(10)
                    with connection:
                        serve(connection)
                except TimeoutError:
                    continue
                except OSError:
                    if server.fileno() == -1:
                        return

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(15)


def over_tls(context: ssl.SSLContext, connection: socket.socket) -> None:
    with context.wrap_socket(connection, server_side=True) as wrapped:
        wrapped.recv(1)


@pytest.mark.parametrize("runs", [True, False])
def test_a_broker_that_does_not_take_this_nodes_certificate_any_more_makes_one_think_of_a_revocation(
    runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In TLS 1.3 a node that is refused learns so after the handshake (RFC 8446, 4.4.2.4)."""
    if runs:
        monkeypatch.setattr(status, "ask", lambda _: TOLD | {"up": False})
    authority = Authority()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.write_pair(tmp_path, "broker"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=Authority("Elsewhere").pem)
    certificate, key = authority.write_pair(tmp_path, NODE)
    with listening(partial(over_tls, context)) as port:
        broker = {"url": f"mqtts://127.0.0.1:{port}", "ca_file": str(authority.write(tmp_path)),
                  "certificate_file": str(certificate), "key_file": str(key)}  # fmt: skip
        code, said = looked({"a": Says(READING)}, tmp_path, monkeypatch, capsys, broker=broker)
    assert (code, said["gateway"]["said"]) == (1, "no connection: the broker hangs up at once")
    assert "was this node revoked" in said["gateway"]["do"]
    assert "satomori-edge renew" in said["gateway"]["do"]


def test_a_broker_that_hangs_up_on_a_node_it_does_not_know_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """NATS takes any certificate of its authority, and looks for its user only then."""
    monkeypatch.setattr(check, "HANGS_UP_S", 0.1)
    with listening(lambda connection: connection.recv(100)) as port:
        _, said = looked({"a": Says(READING)}, tmp_path, monkeypatch, capsys, broker={"url": f"mqtt://127.0.0.1:{port}"})
    assert said["gateway"]["said"] == "no connection: the broker hangs up at once"


def test_a_broker_of_another_authority_and_one_that_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "CONNECT_S", 1)
    monkeypatch.setattr(check, "HANGS_UP_S", 0.1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority("Elsewhere").write_pair(tmp_path, "broker"))
    with listening(partial(over_tls, context)) as port:
        broker = {"url": f"mqtts://127.0.0.1:{port}", "ca_file": str(Authority().write(tmp_path))}
        with monkeypatch.context() as patch:
            patch.setattr(status, "ask", lambda _: TOLD | {"up": False})
            _, said = looked({"a": Says(READING)}, tmp_path, patch, capsys, broker=broker)
    assert said["gateway"]["said"] == "no connection: the broker's certificate can't be believed"
    with listening(lambda connection: [*iter(partial(connection.recv, 100), b"")]) as port:
        _, said = looked({"a": Says(READING)}, tmp_path, monkeypatch, capsys, broker={"url": f"mqtt://127.0.0.1:{port}"})
    assert said["gateway"]["said"] == f"no connection: 127.0.0.1:{port} does not answer"


@pytest.mark.parametrize(
    ("error", "said", "do"),
    [
        (socket.gaierror(-2, "Name or service not known"), "the name hill.example is not found", "the name in broker.url"),
        (OSError(101, "Network is unreachable"), "no network", "check signal and aerial"),
        (TimeoutError("timed out"), "hill.example:1883 does not answer", "check signal and aerial"),
    ],
)
def test_why_there_is_no_link_is_told_apart(
    error: OSError, said: str, do: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(status, "ask", lambda _: TOLD | {"up": False})
    monkeypatch.setattr(socket, "create_connection", fails)
    _, found = looked({"a": Says(READING)}, tmp_path, monkeypatch, capsys, broker={"url": "mqtt://hill.example:1883"})
    assert found["gateway"]["said"] == f"no connection: {said}"
    assert do in found["gateway"]["do"]


def test_a_check_that_reaches_nobody_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looked({"a": Says(READING)}, tmp_path, monkeypatch, capsys)
    assert not (tmp_path / "state").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
def test_what_root_makes_in_the_agents_folder_belongs_to_the_agent(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 1234, 1234)
    with Gateway(broker.port, answer=Answering()):
        looked({"a": Says(READING)}, tmp_path, monkeypatch, capsys, broker={"url": broker.url})
    assert {path.stat().st_uid for path in (tmp_path / "state").iterdir()} == {1234}


def test_a_running_agent_is_asked_and_not_disturbed(broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answering, answered = Answering(), threading.Event()

    def answer(client: Client, message: MQTTMessage) -> None:
        answering(client, message)
        if answering.births:
            answered.set()

    config = written(
        tmp_path, broker={"url": broker.url},
        device={"health": {"type": "node_health"}, "gate": {"type": "people_counter", "port": str(tmp_path / "none")}},
    )  # fmt: skip
    argv = [sys.executable, "-c", "import sys; from edge.cli import main; sys.exit(main())", "run", str(config)]
    with (
        Gateway(broker.port, answer=answer),
        subprocess.Popen(argv, stderr=subprocess.DEVNULL, text=True, cwd=ROOT) as child,
    ):
        try:
            assert answered.wait(20)
            births = len(answering.births)
            for _ in range(100):  # the ack is on its way
                code = cli.main(["check", "--json", "--lang", "en", str(config)])
                said = {one["what"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
                if said["gateway"]["state"] == "ok":
                    break
            assert code == 1
            assert "asked, not disturbed" in said["agent"]["said"]
            assert said["device.health"]["state"] == "ok"
            assert "can't be opened" in said["device.gate"]["do"]
            assert len(answering.births) == births
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(20)


def test_beside_a_running_agent_the_signal_is_looked_at_ten_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "SIGNAL_EVERY_S", 0)
    levels = iter([-90, -90, *[-60] * 8])
    monkeypatch.setattr(machine, "wifi_rssi_dbm", lambda: next(levels))
    assert asyncio.run(check._signals()) == [-90, -90, *[-60] * 8]
    monkeypatch.setattr(machine, "wifi_rssi_dbm", lambda: None)
    assert asyncio.run(check._signals()) == [None]


# The screen


def test_in_japanese_it_reads_as_people_speak(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wifi(tmp_path, -88)
    monkeypatch.setenv("LANG", "ja_JP.UTF-8")
    monkeypatch.setattr(check, "make_driver", lambda *_: Says(READING))
    with Gateway(broker.port, answer=Answering()):
        assert cli.main(["check", str(written(tmp_path, broker={"url": broker.url}))]) == 0
    out = capsys.readouterr().out
    assert "通信テスト：良好（10回中10回成功" in out
    assert "電波が弱いです（-88dBm）\n   → 2〜3m高い場所で試してください" in out
    assert out.splitlines()[-1] == "ここに設置できます"


def test_nobody_may_leave_before_the_gateway_has_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status, "ask", lambda _: TOLD | {"answered_s": None})
    assert cli.main(["check", "--lang", "ja", str(written(tmp_path, device={"a": {"type": "node_health"}}))]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "通信確認待ちです"


def test_nothing_of_the_log_stands_above_the_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warns(*_: object) -> Says:
        logging.getLogger("edge").warning("the clock was never set")
        return Says(READING)

    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(check, "make_driver", warns)
    cli.main(["check", str(written(tmp_path))])
    assert capsys.readouterr().err == ""


def test_words_are_not_broken_and_an_advice_has_one_arrow() -> None:
    do = Text("電波を確かめてください: " + "connection refused " * 8, "its log says why " * 9)
    for language in screen.LANGUAGES:
        first, second, third = screen.screen([Finding("gateway", "bad", Text("a", "a"), do)], language).splitlines()[1:4]
        assert first.startswith("   → ")
        assert second.startswith("     ")
        assert f"{first[5:]} {second[5:]} {third[5:]}" == " ".join(getattr(do, language).split())


texts = st.builds(lambda text, times: text * times, st.text("ab 電波→…、", max_size=10), st.integers(0, 30))


@settings(max_examples=60)
@given(
    st.lists(
        st.builds(
            Finding,
            what=st.sampled_from(["disk", "device.a", "device." + 32 * "b"]),
            state=st.sampled_from(["ok", "weak", "bad", "unknown"]),
            said=st.builds(Text, texts, texts),
            do=st.none() | st.builds(Text, texts, texts),
        ),
        max_size=30,
    ),
    st.sampled_from(screen.LANGUAGES),
)
def test_whatever_was_found_it_fits_one_screen_and_begins_with_the_worst(found: list[Finding], language: str) -> None:
    lines = screen.screen(found, language).splitlines()
    assert len(lines) <= LINES
    assert all(_width(line) <= COLUMNS for line in lines)
    assert (lines[0].startswith("NG")) is any(one.is_bad for one in found)
    json.loads(screen.as_json(found, language))
