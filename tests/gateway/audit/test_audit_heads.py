"""Once a day the trail's end is told outside: a synced line in a file, and a message; who rewrites the trail is found by it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import delete

from gateway.audit import record
from gateway.audit.config import AuditConfig
from gateway.audit.export import Heads, HeadsError, append, read_heads
from gateway.audit.verify import verify
from gateway.paging import Notices
from gateway.state import State, open_state
from gateway.state.tables import audit, audit_details

NOW_US = 1_780_434_720_000_000  # 3 June 06:12 in Japan
DAY_US = 86_400 * 1_000_000
TOKYO = ZoneInfo("Asia/Tokyo")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    try:
        yield made
    finally:
        made.close()


class Phone:
    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.conditions: list[tuple[str, str]] = []

    def tell(self, connection: object, **said: Any) -> str:
        self.told.append(said)
        return "page"

    def condition(self, part: str, level: str, reason: str = "") -> None:
        self.conditions.append((part, level))


def act(state: State, thing: str = "alert/a-1") -> None:
    with state.write() as connection:
        record(connection, "account:1", "alert.resolve", thing, NOW_US)


def heads(state: State, phone: Phone, **config: Any) -> Heads:
    return Heads(state, AuditConfig(**config), TOKYO, cast(Notices, phone), phone.condition)


def test_each_day_one_line_that_agrees_with_the_trail(state: State, tmp_path: Path) -> None:
    file, phone = tmp_path / "other-disk" / "heads.txt", Phone()
    chore = heads(state, phone, heads_file=file)
    chore.run(NOW_US)
    assert not file.exists()  # nothing was done yet
    act(state)
    for at_us in (NOW_US, NOW_US + 3600 * 1_000_000, NOW_US + DAY_US):
        chore.run(at_us)
        act(state)
    lines = file.read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [["2026-06-03", "1"], ["2026-06-04", "3"]]
    assert file.stat().st_mode & 0o777 == 0o600
    found = verify(state, read_heads(file))
    assert (found.heads, found.fault) == (2, None)


def test_a_clock_that_was_a_year_ahead_does_not_end_the_heads(state: State, tmp_path: Path) -> None:
    file, phone = tmp_path / "heads.txt", Phone()
    act(state)
    chore = heads(state, phone, heads_file=file, heads_to="office")
    for at_us in (NOW_US + 365 * DAY_US, NOW_US, NOW_US):
        chore.run(at_us)
    assert [line.split()[0] for line in file.read_text().splitlines()] == ["2027-06-03", "2026-06-03"]
    assert [one["facts"]["day"] for one in phone.told] == ["2027-06-03", "2026-06-03"]


def test_a_trail_that_was_rewritten_is_told_and_not_remembered(state: State, tmp_path: Path) -> None:
    file, phone = tmp_path / "heads.txt", Phone()
    act(state)
    heads(state, phone, heads_file=file).run(NOW_US)
    with state.write() as connection:
        connection.execute(delete(audit_details))
        connection.execute(delete(audit))
    act(state, "alert/another")
    with pytest.raises(HeadsError, match="no longer has what line 1"):
        heads(state, phone, heads_file=file).run(NOW_US + DAY_US)
    assert phone.conditions[-1] == ("audit", "firing")
    assert len(file.read_text().splitlines()) == 1


def test_somebody_is_told_once_a_day_and_nothing_of_who_did_what(state: State) -> None:
    phone = Phone()
    chore = heads(state, phone, heads_to="office")
    chore.run(NOW_US)
    act(state)
    for at_us in (NOW_US, NOW_US + 1, NOW_US + DAY_US):
        chore.run(at_us)
    assert [said["facts"]["day"] for said in phone.told] == ["2026-06-03", "2026-06-04"]
    said = [(one["to"], one["asks"], one["ends"], one["severity"]) for one in phone.told]
    assert said == [(["office"], False, True, "info")] * 2
    assert "account:1" not in str(phone.told)


def test_a_line_that_a_power_cut_tore_is_not_believed_and_makes_room(tmp_path: Path) -> None:
    file = tmp_path / "heads.txt"
    append(file, f"2026-06-03 1 {'a' * 64}")
    with file.open("a") as torn:
        torn.write("2026-06-04 2 bb")
    assert [one.id for one in read_heads(file)] == [1]
    append(file, f"2026-06-05 3 {'c' * 64}")
    assert [one.id for one in read_heads(file)] == [1, 3]


def test_a_line_that_is_no_head_is_named(tmp_path: Path) -> None:
    file = tmp_path / "heads.txt"
    file.write_text(f"2026-06-03 1 {'a' * 64}\nhello\n")
    with pytest.raises(HeadsError, match="line 2: 'hello'"):
        read_heads(file)
