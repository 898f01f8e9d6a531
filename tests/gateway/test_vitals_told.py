"""What `/metrics` tells of the machine, of certificates and of backups: what nobody knows is no number, and never fine."""

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import vitals
from gateway.config import GatewayConfig, load
from gateway.nodes import authority
from gateway.service import running
from gateway.state import State, open_state
from gateway.state.tables import cursors
from gateway.telemetry import Telemetry
from simulators.broker import nats
from tests.gateway.backup.saved import furnished, said
from tests.gateway.scraped import Shown
from tests.gateway.town import NOW_US, SECOND_US, Town, batch, event

DAY_S = 86_400


def with_nodes(folder: Path, path: Path) -> GatewayConfig:
    names = 'broker_url = "mqtts://localhost:1", server_names = ["localhost", "127.0.0.1"]'
    nodes = f'folder = "{folder}", public_url = "https://localhost:1", {names}'
    path.write_text(path.read_text().replace("[rule]", f"nodes = {{ {nodes} }}\n[rule]"))
    return load(path)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def test_a_process_that_does_not_do_the_work_says_nothing_of_it(telemetry: Telemetry) -> None:
    """Else the process that sends would say that the broker is gone, and that no backup was ever made."""
    shown = Shown(telemetry)
    for name in (
        "broker_up", "unjudged_oldest_seconds", "handed_oldest_seconds", "backup_timestamp_seconds",
        "restore_tested_timestamp_seconds",
    ):  # fmt: skip
        assert math.isnan(shown(name)), name


def test_each_place_that_is_written_to_tells_its_room(tmp_path: Path, telemetry: Telemetry) -> None:
    config = load(furnished(tmp_path))
    (tmp_path / "media").mkdir()
    vitals.expose(config, telemetry)
    free = Shown(telemetry).samples["disk_free_bytes"]
    assert {name for (name,) in free} == {"media", "people", "state", "store"}
    assert all(value > 2**20 for value in free.values())
    (tmp_path / "media").rmdir()
    assert math.isnan(Shown(telemetry)("disk_free_bytes", "media")), "whatever is not there has no room, and none is invented"


def test_of_servers_elsewhere_no_room_is_told(tmp_path: Path) -> None:
    path = furnished(tmp_path)
    path.write_text(
        path.read_text()
        .replace(f'"sqlite:///{tmp_path}/state.db"', '"postgresql://a@db.example/a"')
        .replace(
            f'type = "sqlite", path = "{tmp_path}/series.db"',
            f'type = "influxdb", url = "http://127.0.0.1:8086", org = "a", bucket = "a", token_file = "{tmp_path}/token"',
        )
        .replace("[rule]", f'keep = {{ erasures_file = "{tmp_path}/erasures" }}\n[rule]')
    )
    assert set(vitals.written(load(path))) == {"media", "people"}


def test_certificates_tell_their_end_and_what_took_their_place_does(tmp_path: Path, telemetry: Telemetry) -> None:
    folder = tmp_path / "ca"
    authority.init(folder, ["localhost", "127.0.0.1"], NOW_US)
    config = with_nodes(folder, furnished(tmp_path / "gateway"))
    vitals.expose(config, telemetry)
    ends = Shown(telemetry).samples["certificate_ends_timestamp_seconds"]
    assert {name for (name,) in ends} == {"authority", "listener"}
    for name, file in (("authority", "ca"), ("listener", authority.LISTENER)):
        assert ends[name,] == authority.ends_us(folder / f"{file}.pem") / 1e6
        assert ends[name,] > NOW_US / 1e6 + 300 * DAY_S
    (folder / "ca.pem").write_text("half of a fi")
    shown = Shown(telemetry)
    assert math.isnan(shown("certificate_ends_timestamp_seconds", "authority"))
    assert shown("certificate_ends_timestamp_seconds", "listener") == ends["listener",]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path}/state.db")
    yield opened
    opened.close()


def test_a_backup_that_was_never_made_is_said_to_be_none(state: State, telemetry: Telemetry) -> None:
    vitals.note(state, telemetry, NOW_US)
    shown = Shown(telemetry)
    assert (shown("backup_timestamp_seconds"), shown("restore_tested_timestamp_seconds")) == (0, 0)
    with state.write() as connection:
        connection.execute(
            cursors.insert(), [{"name": "backup_us", "value": NOW_US}, {"name": "restore_tested_us", "value": 5e6}]
        )
    vitals.note(state, telemetry, NOW_US)
    shown = Shown(telemetry)
    assert (shown("backup_timestamp_seconds"), shown("restore_tested_timestamp_seconds")) == (NOW_US / 1e6, 5)


def test_an_event_that_nobody_judges_grows_old(tmp_path: Path) -> None:
    with Town(tmp_path) as town:
        town.process(batch(events=[event(1)]))
        vitals.note(town.state, town.telemetry, NOW_US + 90 * SECOND_US)
        assert Shown(town.telemetry)("unjudged_oldest_seconds") == 0
        with town.state.write() as connection:
            connection.execute(cursors.delete().where(cursors.c.name == "watch"))
        vitals.note(town.state, town.telemetry, NOW_US + 90 * SECOND_US)
        assert Shown(town.telemetry)("unjudged_oldest_seconds") == 90


def test_a_gateway_at_work_tells_all_of_it(tmp_path: Path) -> None:
    """With the certificate that the broker really showed, whatever lies in our folder since."""
    folder, path = tmp_path / "ca", furnished(tmp_path / "gateway")
    with_nodes(folder, path)
    said("authority", "init", path)
    with nats(tmp_path / "broker", authority=folder) as broker:
        ours = f'ca_file = "{folder}/ca.pem", certificate_file = "{folder}/gateway.pem", key_file = "{folder}/gateway-key.pem"'
        path.write_text(
            path.read_text()
            .replace('url = "mqtt://127.0.0.1:9"', f'url = "{broker.url}", {ours}')
            .replace("nodes = { folder", 'nodes = { host = "127.0.0.1", port = 0, folder')
        )
        shown = asyncio.run(asyncio.wait_for(at_work(load(path)), 60))
    ends = {name for (name,) in shown.samples["certificate_ends_timestamp_seconds"]}
    assert ends == {"authority", "broker", "client", "listener"}
    assert shown("certificate_ends_timestamp_seconds", "broker") == authority.ends_us(folder / "broker.pem") // 1_000_000
    assert (shown("backup_timestamp_seconds"), shown("unjudged_oldest_seconds"), shown("broker_up")) == (0, 0, 1)


async def at_work(config: GatewayConfig) -> Shown:
    """What it tells once it is connected, and has looked for the first time."""
    async with running(config) as gateway:
        while True:
            shown = Shown(gateway.telemetry)
            if shown("broker_up") == 1 and ("vitals",) in shown.samples.get("chore_last_success_timestamp_seconds", {}):
                return shown
            await asyncio.sleep(0.05)  # the pause between two looks
