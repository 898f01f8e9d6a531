"""`authority` and `node` as an operator meets them, and a whole gateway that nodes reach by certificates only."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from edge.contract.messages import State, encode
from edge.contract.topics import Channel, Topic, topic_for
from gateway.cli import main
from gateway.config import load
from gateway.errors import ConfigError
from gateway.state import open_state, tables
from simulators.ports import free_port
from tests.gateway.nodes.boxes import Box, node_tls
from tests.gateway.nodes.test_node_brokers import nats_conf
from tests.services import listening, running

WAIT_S = 30

Say = pytest.CaptureFixture[str]


def written(folder: Path, more: str = "", broker: str = 'url = "mqtt://127.0.0.1"', **changed: str) -> Path:
    settings = {
        "folder": str(folder / "authority"), "host": "127.0.0.1", "public_url": "https://gateway.example:8443",
        "broker_url": "mqtts://gateway.example:8883",
    } | changed  # fmt: skip
    (folder / "tokens").write_text("tanaka operator,officer invented-operator-token\n")
    (folder / "tokens").chmod(0o600)
    path = folder / "gateway.toml"
    path.write_text(
        f"""
broker = {{ {broker} }}
state = {{ url = "sqlite:///{folder}/state.db" }}
store = {{ type = "sqlite", path = "{folder}/series.db" }}
api = {{ tokens_file = "{folder}/tokens", port = 0 }}
media = {{ folder = "{folder}/media" }}
[nodes]
port = 0
server_names = ["gateway.example", "localhost", "127.0.0.1"]
"""
        + "".join(f'{name} = "{value}"\n' for name, value in settings.items())
        + more
    )
    return path


def told(capsys: Say, *words: str | Path, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == code
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert said["ok"] is (code == 0)
    return said


def test_an_authority_is_made_once_and_shown(tmp_path: Path, capsys: Say) -> None:
    path = written(tmp_path)
    made = told(capsys, "authority", "init", path)["made"]
    assert {"ca.pem", "broker.pem", "gateway.pem", "listener.pem", "signing-key.pem"} <= set(made)
    assert {"crl.pem", "nats-nodes.conf"} <= {file.name for file in (tmp_path / "authority").iterdir()}
    assert told(capsys, "authority", "init", path)["made"] == []
    shown = told(capsys, "authority", "show", path)
    assert set(shown["good_until_us"]) == {"ca", "broker", "listener", "gateway"}
    assert main(["authority", "show", str(path)]) == 0
    assert "ca.pem" in capsys.readouterr().out


def test_a_code_is_printed_with_what_to_scan(tmp_path: Path, capsys: Say) -> None:
    path = written(tmp_path)
    told(capsys, "authority", "init", path)
    said = told(capsys, "node", "add", path, "kitayama-03", "--hours", "2")
    assert said["qr"] == f"satomori:claim?u=https%3A%2F%2Fgateway.example%3A8443&c={said['code'].replace('-', '')}&n=kitayama-03"
    assert main(["node", "add", str(path), "kitayama-03"]) == 0
    out = capsys.readouterr().out
    assert "█" in out
    code = re.search(r"^kitayama-03: (\S+)", out, re.MULTILINE)
    assert code
    assert f"\n  satomori-edge claim {code[1]} --gateway https://gateway.example:8443\n" in out, "the whole line to type"
    assert "void now" in out, "the code before it"


@pytest.mark.parametrize("hours", ["0.0001", "0", "2161", "9" * 5000])
def test_hours_that_cannot_be_are_named(tmp_path: Path, capsys: Say, hours: str) -> None:
    with pytest.raises(SystemExit):
        main(["node", "add", str(written(tmp_path)), "kitayama-03", "--hours", hours])
    assert "is no whole number of hours from 1 to 2160" in capsys.readouterr().err


def test_the_list_says_who_waits_who_is_good_and_who_is_gone(tmp_path: Path, capsys: Say) -> None:
    path = written(tmp_path)
    told(capsys, "authority", "init", path)
    told(capsys, "node", "add", path, "kitayama-03")
    (node,) = told(capsys, "node", "list", path)["nodes"]
    assert (node["node"], node["certificates"]) == ("kitayama-03", [])
    assert node["claim"]["failures"] == 0
    assert "code" not in node["claim"], "a list is no place for secrets"
    assert told(capsys, "node", "revoke", path, "kitayama-03") == {
        "ok": True, "node": "kitayama-03", "certificates": 0, "codes": 1,
    }  # fmt: skip
    assert "is it the node's name?" in told(capsys, "node", "revoke", path, "kitayama-03", code=1)["error"]
    assert told(capsys, "node", "list", path)["nodes"] == []


def test_the_list_says_how_each_node_does(tmp_path: Path, capsys: Say) -> None:
    path = written(tmp_path)
    with contextlib.closing(open_state(f"sqlite:///{tmp_path}/state.db")) as state, state.write() as connection:
        for name, online, running in (("kitayama-03", True, 2), ("minami-01", False, 0)):
            row = {"node": name, "online": online, "offline_reason": None if online else "lost", "seen_us": 1, "agent": "1.2.3"}
            connection.execute(tables.nodes.insert().values(**row, config_revision=running))
        connection.execute(tables.nodes.insert().values(node="canary", online=True, seen_us=1))  # the gateway's own, no box
        asked = {"node": "kitayama-03", "revision": 3, "payload": "{}", "sha256": "", "created_us": 1, "created_by": "tanaka"}
        connection.execute(tables.desired.insert().values(**asked, outcome="failed", reason="pin 17 is taken"))
        given = {"name": "upload_diagnostics", "payload": "{}", "issued_us": 1, "issued_by": "tanaka", "expires_us": 2}
        connection.execute(tables.commands.insert().values(**given, id="c1", node="kitayama-03", state="done", media="a" * 64))
    first, second = told(capsys, "node", "list", path)["nodes"]
    assert (first["online"], first["running"], first["seen_us"]) == (True, 2, 1)
    assert first["desired"] == {"revision": 3, "outcome": "failed", "reason": "pin 17 is taken"}
    assert (second["online"], second["offline_reason"], second["desired"]) == (False, "lost", None)
    assert main(["node", "list", str(path)]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    lines = out.replace("\n    ", " ").splitlines()
    assert "online" in lines[0]
    assert "runs revision 2, asked for 3: failed: pin 17 is taken" in lines[0]
    assert "offline (lost)" in lines[1]
    assert "runs its own file" in lines[1]

    shown = told(capsys, "node", "show", path, "kitayama-03")
    assert [(one["name"], one["state"], one["media"]) for one in shown["commands"]] == [("upload_diagnostics", "done", "a" * 64)]
    assert "payload" not in shown["commands"][0]
    assert main(["node", "show", str(path), "kitayama-03"]) == 0
    assert f"upload_diagnostics: done; file /api/v1/media/{'a' * 64}" in " ".join(capsys.readouterr().out.split())
    assert "there is no node" in told(capsys, "node", "show", path, "kitayama-33", code=1)["error"]

    with contextlib.closing(open_state(f"sqlite:///{tmp_path}/state.db")) as state, state.write() as connection:
        connection.execute(tables.commands.update().values(name="ping", media=None, rssi_dbm=-97))
    assert told(capsys, "node", "show", path, "kitayama-03")["commands"][0]["rssi_dbm"] == -97
    assert main(["node", "show", str(path), "kitayama-03"]) == 0
    assert "ping: done; it hears its network with -97 dBm" in " ".join(capsys.readouterr().out.split())


def test_who_is_revoked_hears_nothing_until_claimed_again(tmp_path: Path, capsys: Say) -> None:
    path, devices = written(tmp_path), tmp_path / "devices.toml"
    devices.write_text('device.trap-11 = { type = "reed_trap", pin = 17 }')
    told(capsys, "authority", "init", path)
    told(capsys, "node", "add", path, "kitayama-03")
    error = told(capsys, "node", "command", path, "kitayama-03", "identify", code=2)["error"]
    assert "kitayama-03 is not claimed yet" in error
    told(capsys, "node", "desired", path, "kitayama-03", devices)  # it comes with the identity
    with contextlib.closing(open_state(f"sqlite:///{tmp_path}/state.db")) as state, state.write() as connection:
        row = {"serial": "1", "node": "kitayama-03", "issued_us": 0, "not_after_us": 2**52}
        connection.execute(tables.certificates.insert().values(**row))
    told(capsys, "node", "command", path, "kitayama-03", "identify")
    assert main(["node", "revoke", str(path), "kitayama-03", "--why", "stolen"]) == 0
    assert "sudo systemctl restart mosquitto" in capsys.readouterr().out.splitlines()[-1]
    (before,) = told(capsys, "node", "show", path, "kitayama-03")["commands"]
    assert (before["state"], before["reason"]) == ("expired", "the node was revoked meanwhile")
    for what, rest in (("command", "identify"), ("desired", devices)):
        error = told(capsys, "node", what, path, "kitayama-03", rest, code=2)["error"]
        assert "kitayama-03 was revoked (stolen)" in error
        assert "satomori-gateway node add" in error
    told(capsys, "node", "add", path, "kitayama-03")
    told(capsys, "node", "desired", path, "kitayama-03", devices)


def test_a_lost_key_of_the_authority_is_to_be_restored(tmp_path: Path, capsys: Say) -> None:
    """`authority init` would refuse, so nobody is sent there first."""
    path = written(tmp_path)
    told(capsys, "authority", "init", path)
    (tmp_path / "authority" / "ca-key.pem").unlink()
    for group, what, *name in (("authority", "show"), ("node", "add", "kitayama-03"), ("authority", "init")):
        assert "not ca-key.pem. Restore it from a backup" in told(capsys, group, what, path, *name, code=2)["error"]
    assert "Restore it from a backup" in told(capsys, "check", path, code=1)["faults"]["nodes"]


def test_a_card_is_written_with_a_code_of_its_own(tmp_path: Path, capsys: Say) -> None:
    path = written(tmp_path)
    told(capsys, "authority", "init", path)
    folder = Path(told(capsys, "node", "image", path, "kitayama-03", "--out", tmp_path / "card")["folder"])
    assert {file.name for file in folder.iterdir()} == {"user-data", "meta-data", "network-config"}
    assert told(capsys, "node", "list", path)["nodes"][0]["claim"] is not None
    again: list[str | Path] = ["node", "image", path, "kitayama-03", "--out", tmp_path / "card"]
    assert "--force" in told(capsys, *again, code=2)["error"]
    assert main([*map(str, again), "--force"]) == 0
    assert "The code made earlier for kitayama-03 is void now" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [["authority", "show"], ["node", "add", "kitayama-03"], ["node", "revoke", "kitayama-03"], ["node", "image", "kitayama-03"]],
)
def test_without_an_authority_it_says_how_to_make_one(tmp_path: Path, capsys: Say, words: list[str]) -> None:
    path = written(tmp_path)
    error = told(capsys, *words[:2], path, *words[2:], code=2)["error"]
    assert "satomori-gateway authority init" in error
    assert main(["run", str(path)]) == 2


@pytest.mark.parametrize("name", ["gateway", "satomori-gateway", "localhost", "gateway.example", "Kita"])
def test_names_that_would_have_others_rights(tmp_path: Path, capsys: Say, name: str) -> None:
    path = written(tmp_path)
    told(capsys, "authority", "init", path)
    for command in ("add", "image"):
        assert name in told(capsys, "node", command, path, name, code=2)["error"]


def test_without_nodes_in_the_configuration(tmp_path: Path, capsys: Say) -> None:
    path = written(tmp_path)
    path.write_text(path.read_text().split("[nodes]")[0])
    assert "nodes: this configuration has no [nodes]" in told(capsys, "authority", "init", path, code=2)["error"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"public_url": "http://gateway.example"}, "public_url: 'http://gateway.example' is not https"),
        ({"public_url": "https://other.example"}, "server_names lacks other.example"),
        ({"broker_url": "mqtt://gateway.example"}, "nodes show their certificates by TLS"),
        ({"broker_url": "gateway.example"}, "is not mqtt://host:port"),
        ({"public_url": "https://gateway.example:99999"}, "Port out of range"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(written(tmp_path, **changed))


def test_check_says_what_is_wrong_with_the_authority(tmp_path: Path, capsys: Say) -> None:
    path = written(tmp_path)
    assert "authority init" in told(capsys, "check", path, code=1)["faults"]["nodes"]
    told(capsys, "authority", "init", path)
    assert "nodes" not in told(capsys, "check", path, code=1)["faults"]
    (tmp_path / "authority" / "crl.pem").unlink()
    assert "crl.pem is missing" in told(capsys, "check", path, code=1)["faults"]["nodes"]


@pytest.mark.parametrize(
    ("setting", "content", "said"),
    [
        ("ca_file", None, "broker.ca_file: .*can't be read: No such file"),
        ("ca_file", "no certificate", "broker.ca_file: .*is not what it should be, in PEM"),
        ("certificate_file", None, "broker.certificate_file: .*can't be read"),
        ("key_file", None, "broker.key_file: .*can't be read"),
        ("key_file", "no key", "broker.certificate_file and key_file: .*is not what it should be"),
    ],
)
def test_check_names_the_file_of_the_broker_that_is_wrong(
    tmp_path: Path, capsys: Say, setting: str, content: str | None, said: str
) -> None:
    files = {name: tmp_path / "authority" / name for name in ("ca.pem", "gateway.pem", "gateway-key.pem")}
    settings = dict(zip(("ca_file", "certificate_file", "key_file"), files.values(), strict=True))
    told(capsys, "authority", "init", written(tmp_path))
    settings[setting] = tmp_path / "bad.pem"
    if content is not None:
        settings[setting].write_text(content)
        settings[setting].chmod(0o600)
    broker = ", ".join(f'{name} = "{file}"' for name, file in settings.items())
    path = written(tmp_path, broker=f'url = "mqtts://localhost:1", {broker}')
    assert re.search(said, told(capsys, "check", path, code=1)["faults"]["broker"])
    assert re.search(said, told(capsys, "run", path, code=2)["error"])


def heard_of(url: str, node: str) -> bool:
    """Asks the API until the node's word is through the broker and committed."""
    deadline = time.monotonic() + WAIT_S
    request = urllib.request.Request(url + "api/v1/nodes", headers={"Authorization": "Bearer invented-operator-token"})  # noqa: S310
    while time.monotonic() < deadline:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:  # noqa: S310  our own, on loopback
            if any(one["node"] == node and one["online"] for one in json.load(answer)["nodes"]):
                return True
    return False


@pytest.mark.sqlite_only("a process of its own opens the file")
def test_a_whole_gateway_that_nodes_reach_by_certificates_only(tmp_path: Path, capsys: Say) -> None:
    """init, broker, run; a code, a claim over HTTPS, a birth over mTLS; and the gateway has heard of the node."""
    port, listener, authority = free_port(), free_port(), tmp_path / "authority"
    broker = (
        f'url = "mqtts://localhost:{port}", ca_file = "{authority}/ca.pem", certificate_file = "{authority}/gateway.pem", '
        f'key_file = "{authority}/gateway-key.pem"'
    )
    path = written(
        tmp_path, broker=broker, public_url=f"https://localhost:{listener}", broker_url=f"mqtts://localhost:{port}",
        broker_pid_file=str(tmp_path / "broker.pid"),
    )  # fmt: skip
    path.write_text(path.read_text().replace("\nport = 0\n", f"\nport = {listener}\n"))
    told(capsys, "authority", "init", path)
    assert "nobody tells the broker" in str(told(capsys, "check", path, code=1)["faults"]["nodes"])
    argv, _ = nats_conf(tmp_path, port)
    run = [sys.executable, "-c", "import sys; from gateway.cli import main; sys.exit(main())", "run", str(path), "--json"]
    with running(argv, lambda: listening(port)):
        told(capsys, "check", path)
        root = Path(__file__).parents[3]
        gateway = subprocess.Popen(run, stdout=subprocess.PIPE, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
        assert gateway.stdout is not None
        try:
            url = str(json.loads(gateway.stdout.readline())["url"])
            code = told(capsys, "node", "add", path, "kitayama-03")["code"]
            box = Box()
            identity = box.claimed_over(listener, code)
            node = Client(CallbackAPIVersion.VERSION2, "kitayama-03", clean_session=False, protocol=MQTTv311)
            node.tls_set_context(node_tls(authority, *box.files(tmp_path, identity.certificate)))
            node.reconnect_delay_set(1, 1)
            connected = threading.Event()
            node.on_connect = lambda *_: connected.set()
            node.connect_async("localhost", port)
            node.loop_start()
            assert connected.wait(WAIT_S)
            topic = topic_for(Topic("kitayama-03", Channel.STATE))
            state = encode(State(online=True, session="0" * 16))
            node.publish(topic, state, qos=1, retain=True).wait_for_publish(WAIT_S)
            node.disconnect()
            node.loop_stop()
            assert heard_of(url, "kitayama-03")
            (seen,) = told(capsys, "node", "list", path)["nodes"]
            assert seen["certificates"][0]["revoked_us"] is None
            assert told(capsys, "node", "revoke", path, "kitayama-03")["certificates"] == 1
            gateway.send_signal(signal.SIGTERM)
            assert gateway.wait(WAIT_S) == 0
        finally:
            gateway.kill()
            gateway.wait()
            gateway.stdout.close()
