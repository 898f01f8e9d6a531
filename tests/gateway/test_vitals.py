"""What `check` finds out about the machine and what waits: each with a level, and unknown where nobody knows."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import insert

from gateway import vitals
from gateway.cli import main
from gateway.config import GatewayConfig, load
from gateway.errors import ConfigError
from gateway.state import State, open_state
from gateway.state.tables import cursors, inbox, notifications, quotas
from gateway.state.upsert import upsert
from gateway.store import open_store
from gateway.vitals import Vital
from simulators.broker import nats
from tests.gateway.backup.saved import furnished, said
from tests.gateway.town import NOW_US, Town, batch, event

ZONE = ZoneInfo("Asia/Tokyo")
MINUTE_US, DAY_US = 60_000_000, 86_400_000_000


@pytest.fixture
def config(tmp_path: Path) -> GatewayConfig:
    return load(furnished(tmp_path))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path}/state.db")
    yield opened
    opened.close()


def noted(state: State, **values: int) -> None:
    with state.write() as connection:
        connection.execute(upsert(cursors, "value"), [{"name": name, "value": value} for name, value in values.items()])


def backup_of(state: State, now_us: int = NOW_US) -> Vital:
    with state.read() as connection:
        return vitals.backup(connection, now_us, ZONE)


def test_a_backup_that_nobody_ever_tried_to_put_back_is_a_warning(state: State) -> None:
    assert backup_of(state).level == "!!"
    noted(state, backup_us=NOW_US)
    assert backup_of(state) == (
        "!!",
        "made 2026-06-03; a restore was never tested: satomori-gateway restore gateway.toml BACKUP --dry-run",
    )
    noted(state, restore_tested_us=NOW_US)
    assert backup_of(state) == ("OK", "made 2026-06-03; a restore was tested 2026-06-03")
    assert backup_of(state, NOW_US + 89 * DAY_US).level == "OK"
    assert backup_of(state, NOW_US + 91 * DAY_US).level == "!!"


def test_what_waits_longer_than_it_should_is_named_with_how_long(tmp_path: Path) -> None:
    with Town(tmp_path) as town:
        with town.state.read() as connection:
            assert vitals.queues(connection, NOW_US) == ("OK", "nothing waits")
        town.process(batch(events=[event(1)]))
        with town.state.write() as connection:
            connection.execute(inbox.insert(), {"id": "line:1", "channel": "line", "received_us": NOW_US - 1, "body": "{}"})
            waiting = vitals.queues(connection, NOW_US + 3 * MINUTE_US)
            assert (waiting.level, "answer for 3 min" in waiting.text) == ("OK", True)
            late = vitals.queues(connection, NOW_US + 6 * MINUTE_US)
            assert late.level == "!!"
            assert "message to send for 6 min" in late.text
            assert "not judged" not in late.text
            connection.execute(cursors.delete().where(cursors.c.name == "watch"))
            assert "event not judged for 6 min" in vitals.queues(connection, NOW_US + 6 * MINUTE_US).text


def test_a_message_that_is_to_go_later_does_not_wait(state: State) -> None:
    row = {"id": "n", "contact": "office", "state": "queued", "body": "{}", "created_us": NOW_US, "due_us": NOW_US + MINUTE_US,
           "attempts": 0}  # fmt: skip
    with state.write() as connection:
        connection.execute(insert(notifications), row)
        assert vitals.queues(connection, NOW_US).text == "nothing waits"


def test_what_line_says_is_left_is_unknown_until_it_was_read(state: State) -> None:
    with state.write() as connection:
        assert vitals.quota(connection, NOW_US, ZONE).level == "??"
        connection.execute(insert(quotas), {"channel": "line", "limit_": 5000, "used": 4788, "read_us": NOW_US})
        assert vitals.quota(connection, NOW_US, ZONE) == ("OK", "212 of 5000 left, of 2026-06-03 06:12 JST")
        assert vitals.quota(connection, NOW_US + 2 * DAY_US, ZONE).level == "??", "that was two days ago"
        connection.execute(quotas.update().values(used=5000))
        assert vitals.quota(connection, NOW_US, ZONE).level == "!!"


def test_the_store_is_written_and_read_and_keeps_one_point_a_day_of_it(config: GatewayConfig) -> None:
    for later_us in (0, MINUTE_US, 2 * MINUTE_US, DAY_US):
        assert vitals.store(config, NOW_US + later_us).text.startswith("written and read in ")
    store = open_store(config.store)
    assert [key[0] for key in store.series()] == ["gateway"]
    assert store.count() == 2
    store.close()


class _Usage(NamedTuple):
    free: int


def test_no_room_is_a_fault_and_little_room_a_warning(config: GatewayConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def free(mib: int) -> None:
        monkeypatch.setattr(vitals, "disk_usage", lambda _: _Usage(mib * 2**20))

    free(100_000)
    assert vitals.disk(config).level == "OK"
    free(600)
    assert vitals.disk(config).level == "!!"
    free(100)
    with pytest.raises(ConfigError, match="no pictures or readings are taken"):
        vitals.disk(config)


def test_the_clock_is_known_or_said_to_be_unknown() -> None:
    assert vitals.clock().level in ("OK", "!!", "??")
    assert vitals.clock().text


def test_over_tls_it_says_until_when_certificates_last_and_warns_in_time(tmp_path: Path) -> None:
    path, ca = furnished(tmp_path / "gateway"), tmp_path / "ca"
    names = 'broker_url = "mqtts://localhost:1", server_names = ["localhost", "127.0.0.1"]'
    nodes = f'folder = "{ca}", public_url = "https://localhost:1", {names}'
    path.write_text(path.read_text().replace("[rule]", f"nodes = {{ {nodes} }}\n[rule]"))
    said("authority", "init", path)
    with nats(tmp_path / "broker", authority=ca) as broker:
        ours = f'ca_file = "{ca}/ca.pem", certificate_file = "{ca}/gateway.pem", key_file = "{ca}/gateway-key.pem"'
        path.write_text(path.read_text().replace('url = "mqtt://127.0.0.1:9"', f'url = "{broker.url}", {ours}'))
        shown: dict[str, Any] = said("check", path)["parts"]["broker"]
    assert shown["level"] == "OK"
    assert re.fullmatch(r"its certificate until \d{4}-\d\d-\d\d, ours until \d{4}-\d\d-\d\d", shown["text"])
    soon = vitals.certificates({"ours": NOW_US + 29 * DAY_US}, NOW_US, ZONE)
    assert soon.level == "!!"


def test_all_of_it_fits_on_a_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", str(furnished(tmp_path))])
    lines = capsys.readouterr().out.replace(str(tmp_path), "/var/lib/satomori").splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
