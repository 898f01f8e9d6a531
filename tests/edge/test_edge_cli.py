"""satomori-edge as a person or a service manager meets it: what it says on which fault, and how it ends."""

import asyncio
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from edge import check, cli
from edge.clock import boot_id, machine_id
from edge.config import load
from edge.contract.messages import State
from edge.errors import ConfigError
from edge.media import MediaFolder
from edge.outbox import Outbox
from edge.records import Site
from simulators.broker import BrokerMissingError, nats
from tests.services import REQUIRE

ROOT = Path(__file__).parents[2]
GOOD: dict[str, Any] = {
    "node": {"name": "kitayama-03"},
    "broker": {"url": "mqtt://127.0.0.1:1"},
    "device": {"trap-11": {"type": "reed_trap", "pin": 17}},
}


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def written(folder: Path, **changes: Any) -> Path:
    """An edge.toml: the good one with some tables replaced; its state is in `folder`."""
    document = GOOD | changes
    if isinstance(document["node"], dict):
        document["node"] = {"state": str(folder / "state"), **document["node"]}
    path = folder / "edge.toml"
    path.write_text("\n".join(f"{key} = {toml(value)}" for key, value in document.items()), encoding="utf-8")
    return path


def trap(**fields: Any) -> dict[str, Any]:
    return {"device": {"trap-11": {"type": "reed_trap", **fields}}}


# Configuration

FAULTS: list[tuple[dict[str, Any], str]] = [
    (trap(pin=99), "device.trap-11.pin: must be a whole number from 0 to 27; it is 99"),
    (trap(pin="17a"), "device.trap-11.pin"),
    (trap(), "device.trap-11.pin: is missing"),
    (trap(pin=17, bounce=3), "device.trap-11.bounce: there is no such setting; did you mean `debounce_ms`?"),
    (
        {"device": {"trap-11": {"type": "reed_trab", "pin": 17}}},
        'device.trap-11.type: there is no "reed_trab"; did you mean reed_trap? It is one of beam_pair, ',
    ),
    ({"device": {"trap-11": {"pin": 17}}}, "device.trap-11.type: is missing; it is one of beam_pair, ble_tags, "),
    ({"device": {"Trap 11": {"type": "reed_trap", "pin": 17}}}, 'device."Trap 11": "Trap 11" is no name'),
    ({"device": {}}, "device: is empty"),
    ({"node": {}}, "node.name: is missing"),
    ({"node": {"name": "Kitayama"}}, 'node.name: "Kitayama" is no name; a name has 1 to 32 of a-z, 0-9'),
    ({"node": {"name": "a", "stat": "x"}}, "node.stat: there is no such setting; did you mean `state`?"),
    ({"broker": {"url": "gateway.local"}}, "broker.url: 'gateway.local' is not mqtt://host:port"),
    ({"broker": {"url": "mqtt://a", "ca_file": "ca.pem"}}, "broker.ca_file: is for TLS"),
    ({"outbox": {"max_records": 10}}, "outbox.max_records: must be a whole number from 1000 to 100000000; it is 10"),
    ({"media": {"url": "http://a"}}, "media.token_file: is missing"),
    ({"devices": {}}, "devices: there is no such setting; did you mean `device`?"),
    (
        {"device": {"trap-11": {"type": "reed_trap", "pin": 17}, "trap-12": {"type": "reed_trap", "pin": 17}}},
        "device.trap-12.pin: 17 belongs to device.trap-11 already",
    ),
    (
        {"device": {"a": {"type": "trail_camera", "folder": "/x"}, "b": {"type": "trail_camera", "folder": "/x"}}},
        "device.b.folder: /x belongs to device.a already",
    ),
]


def test_the_good_one_is_good(tmp_path: Path) -> None:
    assert load(written(tmp_path)).device["trap-11"].type == "reed_trap"


@pytest.mark.parametrize(("changes", "text"), FAULTS, ids=range(len(FAULTS)))
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_fault_ends_with_2_and_a_line_that_names_the_setting(
    command: str,
    changes: dict[str, Any],
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(cli, "_live")
    monkeypatch.delattr(check, "findings")
    assert cli.main([command, str(written(tmp_path, **changes))]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"edge.toml: {text}" in err
    assert "Traceback" not in err
    assert not (tmp_path / "state").exists()


def test_every_fault_has_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load(written(tmp_path, node={}, broker={"url": "x"}))
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize(("content", "text"), [(None, "can't be read"), (b"node = {", "is no TOML"), (b"\xff", "is no TOML")])
def test_a_file_that_is_no_configuration_says_which(
    content: bytes | None, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "edge.toml"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["run", str(path)]) == 2
    assert f"{path} {text}" in capsys.readouterr().err


def test_for_programs_the_fault_is_one_json_object_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--json", str(written(tmp_path, **trap(pin=99)))]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert "device.trap-11.pin" in answer["error"]


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize("setting", ["broker.ca_file", "broker.password_file"])
def test_a_file_of_the_broker_that_is_missing_ends_with_2(
    command: str, setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = {"url": "mqtts://127.0.0.1:1", "username": "x", setting.removeprefix("broker."): str(tmp_path / "none")}
    assert cli.main([command, str(written(tmp_path, broker=broker))]) == 2
    assert f"{setting}: {tmp_path / 'none'} can't be read: No such file" in capsys.readouterr().err


def test_a_missing_token_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    media = {"url": "http://127.0.0.1:1", "token_file": str(tmp_path / "none")}
    assert cli.main(["run", str(written(tmp_path, media=media))]) == 2
    assert f"media.token_file: {tmp_path / 'none'} can't be read" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["walk"], ["run"], ["claim"], ["check", "edge.toml", "--lang", "fr"]])
def test_wrong_usage_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == 2
    assert "usage: satomori-edge" in capsys.readouterr().err


# run


@pytest.mark.parametrize(
    "changes",
    [
        {"media": {"url": "http://127.0.0.1:1", "token_file": "/none/token"}},
        {"broker": {"url": "mqtts://127.0.0.1:1", "ca_file": "/none/ca.pem"}},
    ],
)
def test_whoever_tries_it_with_a_file_missing_leaves_nothing_that_is_in_the_agents_way(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", str(written(tmp_path, **changes))]) == 2
    assert not (tmp_path / "state").exists()


def test_at_its_start_the_agent_says_that_edge_toml_is_not_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def ends(_works: list[Any]) -> None:
        for work in _works:
            work.close()

    remote = {"url": "https://127.0.0.1:1", "keys_file": str(tmp_path / "keys.json")}
    document = {"sha256": "0" * 64, "statement": {"node": "kitayama-03", "revision": 6, "device": {"b": {"type": "node_health"}}}}
    (tmp_path / "state").mkdir()
    (tmp_path / "state/twin.json").write_text(json.dumps({"applied": document, "seen": 6}))
    monkeypatch.setattr(cli, "_until_stopped", ends)
    caplog.set_level("INFO")
    assert cli.main(["run", str(written(tmp_path, remote=remote))]) == 0
    assert "revision 6 from the gateway runs; the [device] sections of edge.toml do not" in caplog.text
    assert "satomori-edge own edge.toml" in caplog.text


def test_an_outbox_that_cannot_be_opened_ends_with_1_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state" / "outbox.db").mkdir(parents=True)
    assert cli.main(["run", str(written(tmp_path))]) == 1
    assert "outbox.db can't be opened" in capsys.readouterr().err


def test_drivers_are_told_which_outbox_this_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites: list[Site] = []

    def make(_device: str, _config: object, site: Site) -> None:
        sites.append(site)
        raise OSError("that is enough")

    monkeypatch.setattr(cli, "make_driver", make)
    assert cli.main(["run", str(written(tmp_path))]) == 1
    with closing(Outbox(tmp_path / "state" / "outbox.db", machine=machine_id(), boot=boot_id())) as outbox:
        assert [site.epoch for site in sites] == [outbox.epoch]


def test_run_works_until_sigterm_and_ends_with_0_a_goodbye_and_everything_committed(tmp_path: Path) -> None:
    try:
        broker = nats(tmp_path / "broker")
    except BrokerMissingError as error:
        if os.environ.get(REQUIRE) == "1":
            raise
        pytest.skip(str(error))
    states: queue.Queue[State] = queue.Queue()
    config = written(tmp_path, broker={"url": broker.url}, device={"health": {"type": "node_health", "interval_s": 1}})
    with broker:
        client = Client(CallbackAPIVersion.VERSION2, "ear", protocol=MQTTv311)
        heard = threading.Event()
        client.on_connect = lambda client, *_: client.subscribe("satomori/v1/+/+/up/#", qos=1)
        client.on_message = lambda _client, _data, message: (
            states.put(State.model_validate_json(message.payload)) if message.topic.endswith("up/state") else heard.set()
        )
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        argv = [sys.executable, "-c", "import sys; from edge.cli import main; sys.exit(main())", "run", str(config)]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, cwd=ROOT) as child:
            assert states.get(timeout=20).online
            assert heard.wait(20)
            child.send_signal(signal.SIGTERM)
            _, log = child.communicate(timeout=20)
        assert states.get(timeout=20).reason == "clean"
        client.disconnect()
        client.loop_stop()
    assert child.returncode == 0, log
    assert "Traceback" not in log
    with closing(Outbox(tmp_path / "state" / "outbox.db", machine=machine_id(), boot=boot_id())) as outbox:
        assert outbox.waiting >= 4


def test_a_gateway_that_says_nothing_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """It takes the connection for a picture, and no more; the service manager would wait for half a minute, then kill."""
    (tmp_path / "token").write_text("media-token")
    MediaFolder(tmp_path / "state" / "media", reserve_bytes=0).keep(b"a picture", "image/jpeg")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        media = {"url": f"http://127.0.0.1:{silent.getsockname()[1]}", "token_file": str(tmp_path / "token")}
        argv = [sys.executable, "-c", "import sys; from edge.cli import main; sys.exit(main())", "run"]
        with subprocess.Popen([*argv, str(written(tmp_path, media=media))], stderr=subprocess.PIPE, cwd=ROOT) as child:
            connection, _ = silent.accept()
            assert connection.recv(100).startswith(b"HEAD")
            child.send_signal(signal.SIGTERM)
            try:
                _, log = child.communicate(timeout=15)
            finally:
                child.kill()
            connection.close()
    assert child.returncode == 0, log
    assert b"Traceback" not in log


def test_an_error_on_the_way_out_is_not_swallowed() -> None:
    """SIGTERM, and then the last commit fails: that is no clean end."""

    async def fails_at_the_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("the last commit failed")

    async def tale() -> None:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        await cli._until_stopped([fails_at_the_end(), asyncio.Event().wait()])  # type: ignore[list-item]

    with pytest.raises(OSError, match="the last commit failed"):
        asyncio.run(tale())


def test_a_farewell_is_not_cut_short_by_the_end_of_the_others() -> None:
    said = []

    async def takes_its_time() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            said.append("goodbye")

    async def tale() -> None:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        await cli._until_stopped([takes_its_time(), asyncio.Event().wait()])  # type: ignore[list-item]

    asyncio.run(tale())
    assert said == ["goodbye"]


def test_a_service_manager_that_does_not_listen_for_a_moment_is_told_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else it would restart an agent that is well."""
    told: list[str] = []

    async def tale() -> None:
        enough = asyncio.Event()

        def notify(said: str) -> bool:
            told.append(said)
            if len(told) in (1, 3, 4):
                raise ConnectionRefusedError("systemd is re-executing")
            if len(told) == 6:
                enough.set()
            return True

        monkeypatch.setattr(cli, "notify", notify)
        monkeypatch.setenv("WATCHDOG_USEC", "2000")
        alive = asyncio.ensure_future(cli._alive())
        await asyncio.wait_for(enough.wait(), 10)
        alive.cancel()

    asyncio.run(tale())
    assert told[:6] == ["READY=1", "READY=1", *["WATCHDOG=1"] * 4]
    assert caplog.text.count("can't be told that all is well") == 2
