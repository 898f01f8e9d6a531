"""Remote care from the gateway's shell: what is asked stands in the state database, and the node's answer is waited for."""

import argparse
import hashlib
import json
from pathlib import Path

import pytest
from sqlalchemy import select, update

from gateway.config import load
from gateway.errors import ConfigError
from gateway.media import MediaShelf
from gateway.nodes import orders_cli
from gateway.nodes.authority import SIGNING_KEY
from gateway.nodes.signing import Signer
from gateway.state import tables
from gateway.terminal import Told
from tests.gateway.town import NODE, Town, birth

DEVICES = '[device]\ntrap-11 = { type = "reed_trap", pin = 17 }\n'
NODES = """
[nodes]
folder = "{folder}/authority"
public_url = "https://gateway.example:8443"
broker_url = "mqtts://gateway.example:8883"
server_names = ["gateway.example"]
"""


@pytest.fixture
def config(town: Town) -> Path:
    """A gateway's configuration, whose state is the town's."""
    town.process(birth())
    folder = town.folder
    (folder / "authority").mkdir(mode=0o700)
    Signer.make(folder / "authority" / SIGNING_KEY)
    path = folder / "gateway.toml"
    path.write_text(
        f'broker = {{ url = "mqtt://127.0.0.1" }}\nstate = {{ url = "sqlite:///{folder}/state.db" }}\n'
        f'store = {{ type = "sqlite", path = "{folder}/series.db" }}\napi = {{ tokens_file = "{folder}/tokens" }}\n'
        f'media = {{ folder = "{folder}/media" }}\n' + NODES.format(folder=folder)
    )
    (folder / "devices.toml").write_text(DEVICES)
    return path


def run(*words: str) -> Told:
    parser = argparse.ArgumentParser()
    orders_cli.add_commands(parser.add_subparsers(required=True))
    arguments = parser.parse_args(list(words))
    told: Told = arguments.act(load(arguments.config), arguments)
    return told


def test_a_configuration_is_asked_for(town: Town, config: Path) -> None:
    told = run("desired", str(config), NODE, str(config.with_name("devices.toml")))
    assert (told.code, told.lines) == (0, [
        f"{NODE}: revision 1: on its way; not answered yet",
        f"its answer, later: satomori-gateway node show {config} {NODE}",
    ])  # fmt: skip
    (row,) = town.rows(tables.desired)
    assert json.loads(row["payload"])["statement"]["device"] == {"trap-11": {"type": "reed_trap", "pin": 17}}
    assert row["created_by"].startswith("cli")
    assert len(town.goes_down(anew=True)) == 1


@pytest.mark.parametrize(("state", "reason", "code"), [("done", None, 0), ("failed", "no lamp", 1)])
def test_the_answer_to_a_command_is_waited_for(
    town: Town, config: Path, monkeypatch: pytest.MonkeyPatch, state: str, reason: str | None, code: int
) -> None:
    def answers(_: float) -> None:
        """The node does, as soon as somebody waits."""
        with town.state.write() as connection:
            connection.execute(update(tables.commands).values(state=state, reason=reason))

    monkeypatch.setattr("gateway.nodes.orders_cli.time.sleep", answers)
    told = run("command", str(config), NODE, "identify", "--wait", "60")
    assert (told.code, told.body["node"], told.body["outcome"], told.body["reason"]) == (code, NODE, state, reason)
    assert ("no lamp" in told.body.get("error", "")) is (code == 1)


def test_a_ping_prints_the_time_it_took_and_how_the_node_hears_its_network(
    town: Town, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(_: float) -> None:
        with town.state.write() as connection:
            given = tables.commands.c
            connection.execute(update(tables.commands).values(state="done", answered_us=given.issued_us + 43_000, rssi_dbm=-97))

    monkeypatch.setattr("gateway.nodes.orders_cli.time.sleep", answers)
    told = run("command", str(config), NODE, "ping", "--wait", "60")
    assert (told.code, told.body["round_trip_ms"], told.body["rssi_dbm"]) == (0, 43, -97)
    assert told.lines[1] == "answered after 43 ms; it hears its network with -97 dBm"


@pytest.fixture
def sends_a_file(town: Town, config: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """While somebody waits, the node answers, and then what its answer names arrives."""
    content = b"\x1f\x8b invented diagnostics"
    sha256 = hashlib.sha256(content).hexdigest()
    shelf = MediaShelf(config.parent / "media", town.state, lambda: town.now_us, reserve_mib=0)

    def goes_on(_: float) -> None:
        with town.state.write() as connection:
            answered = connection.scalar(select(tables.commands.c.state)) == "done"
            connection.execute(update(tables.commands).values(state="done", media=sha256))
        if answered:
            shelf.append(sha256, 0, len(content), content)
            shelf.finish(sha256, len(content), "application/gzip")

    monkeypatch.setattr("gateway.nodes.orders_cli.time.sleep", goes_on)
    return content


def test_a_file_that_the_answer_names_is_saved(config: Path, sends_a_file: bytes) -> None:
    path = config.parent / "diagnostics.gz"
    told = run("command", str(config), NODE, "upload_diagnostics", "--wait", "60", "--save", str(path))
    assert told.code == 0
    assert path.read_bytes() == sends_a_file
    assert str(path) in told.lines[1]
    with pytest.raises(ConfigError, match=r"--save: .* has to be a new file"):
        run("command", str(config), NODE, "upload_diagnostics", "--wait", "60", "--save", str(path))


def test_an_answer_with_a_file_says_where_that_is(config: Path, sends_a_file: bytes) -> None:
    sha256 = hashlib.sha256(sends_a_file).hexdigest()
    told = run("command", str(config), NODE, "upload_diagnostics", "--wait", "60")
    assert (told.code, told.body["media"]) == (0, sha256)
    assert f"GET /api/v1/media/{sha256}" in told.lines[1]


def test_a_file_that_does_not_come_in_time_is_a_failure(town: Town, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(_: float) -> None:
        with town.state.write() as connection:
            connection.execute(update(tables.commands).values(state="done", media="a" * 64))

    times = iter([0.0, 0.0, 0.0, 2.0])
    monkeypatch.setattr("gateway.nodes.orders_cli.time.sleep", answers)
    monkeypatch.setattr("gateway.nodes.orders_cli.time.monotonic", lambda: next(times, 2.0))
    path = config.parent / "late.gz"
    told = run("command", str(config), NODE, "upload_diagnostics", "--wait", "1", "--save", str(path))
    assert told.code == 1
    assert "has not arrived yet" in told.body["error"]
    assert not path.exists()


def test_no_answer_within_the_wait_is_a_failure(config: Path) -> None:
    told = run("command", str(config), NODE, "identify", "--wait", "0.01")
    assert told.code == 1
    assert "not answered yet" in told.body["error"]


@pytest.mark.parametrize(
    ("document", "wrong"),
    [
        ("device = 3", "device: there is no table of devices"),
        ("node = {}", "node: only"),
        ("[device", "is no TOML"),
        ("[device]\nTrap = {}", "device: 'Trap' is no name"),
        (DEVICES + "[broker]\nusername = 'x'", "broker.username"),
    ],
)
def test_what_cannot_be_asked_names_its_place(town: Town, config: Path, document: str, wrong: str) -> None:
    path = config.with_name("devices.toml")
    path.write_text(document)
    with pytest.raises(ConfigError, match=wrong):
        run("desired", str(config), NODE, str(path))
    assert town.rows(tables.desired) == []


def test_a_wrong_order_or_node_is_a_config_error(config: Path) -> None:
    with pytest.raises(ConfigError, match="say which"):
        run("command", str(config), NODE, "take_picture")
    with pytest.raises(ConfigError, match="There is no node"):
        run("command", str(config), "kitayama-33", "identify")


def test_without_nodes_there_is_nothing_to_sign_with(config: Path) -> None:
    config.write_text(config.read_text().replace(NODES.format(folder=config.parent), ""))
    with pytest.raises(ConfigError, match=r"no \[nodes\]"):
        run("command", str(config), NODE, "identify")
