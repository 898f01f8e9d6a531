"""What is kept how long: each kind goes at its time and not before, pictures with their files; and what the command line says."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from traceback import format_exception
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import Connection, insert, select
from sqlalchemy.event import listen
from sqlalchemy.exc import IntegrityError

from gateway.cli import main
from gateway.clock import OwnClock
from gateway.installations import Installed, enter
from gateway.keeping import pictures
from gateway.keeping.config import KeepConfig
from gateway.keeping.kinds import KINDS
from gateway.keeping.late import late_by
from gateway.keeping.retention import Retention
from gateway.media import MediaShelf, discard
from gateway.mimamori.config import MimamoriConfig
from gateway.state import State, open_state, tables
from gateway.telemetry import Telemetry
from tests.gateway.keeping.erased import fill, found_in, rows_of
from tests.gateway.mimamori.searching import Searching

NOW_US = 1_780_434_720_000_000
DAY_US = 86_400 * 1_000_000
GONE = (
    "alerts", "alert_history", "pages", "page_alerts", "answers", "notifications", "quarantine", "sessions", "login_links",
    "ceremonies", "invitations", "search_sightings", "silences", "commands", "jobs", "job_nodes",
)  # fmt: skip
BOAR, WALKER, NOBODY_LOOKED, PROOF = "1" * 64, "2" * 64, "3" * 64, "4" * 64


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    yield made
    made.close()


def run(state: State, folder: Path, days: int, telemetry: Telemetry | None = None) -> dict[str, int]:
    return Retention(state, KeepConfig(), folder, telemetry).run(NOW_US + days * DAY_US)


@pytest.fixture
def shelf(state: State, tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    with state.write() as connection:
        for sha256, content in ((BOAR, "animal"), (WALKER, "person_or_vehicle"), (NOBODY_LOOKED, None), (PROOF, "animal")):
            (folder / sha256).write_bytes(b"...")
            connection.execute(
                insert(tables.media), {"sha256": sha256, "size": 3, "content_type": "image/jpeg", "received_us": NOW_US}
            )
            if content:
                connection.execute(
                    insert(tables.pictures),
                    {
                        "sha256": sha256,
                        "node": "n",
                        "device": "cam",
                        "content": content,
                        "withheld": False,
                        "captured_us": NOW_US,
                    },
                )
        visit = {"id": "v", "node": "n", "device": "t", "at_us": 1, "who": "", "via": "qr", "result": "capture", "recorded_us": 1}
        connection.execute(insert(tables.visits), visit)
        connection.execute(insert(tables.captures), {"id": "c", "node": "n", "device": "t", "visit": "v", "opened_us": 1})
        connection.execute(
            insert(tables.capture_photos), {"sha256": PROOF, "capture": "c", "item": "tail", "added_us": 1, "added_by": ""}
        )
    return folder


def test_where_nothing_is_too_old_nobody_waits_for_the_chore(tmp_path: Path) -> None:
    """An hour's round of thirty pieces would take the write lock thirty times, for nothing."""
    with Searching(tmp_path) as town:
        fill(town)
        chore = Retention(town.state, KeepConfig())
        assert chore.run(NOW_US + 4000 * DAY_US)
        while chore.run(NOW_US + 4000 * DAY_US):
            pass
        writes: list[float] = []
        town.state.wrote = writes.append
        assert chore.run(NOW_US + 4000 * DAY_US) == {}
        assert writes == []


def test_pictures_go_with_their_files_those_of_people_first_and_a_captures_proof_never(state: State, shelf: Path) -> None:
    for days, left in ((29, {BOAR, WALKER, NOBODY_LOOKED, PROOF}), (31, {BOAR, PROOF}), (91, {PROOF})):
        run(state, shelf, days)
        with state.read() as connection:
            assert set(connection.scalars(select(tables.media.c.sha256))) == left
        assert {path.name for path in shelf.iterdir()} == left


def test_a_clock_that_leapt_makes_nothing_too_old_for_a_day(state: State, shelf: Path) -> None:
    clock = OwnClock(state, lambda *_: None)
    clock.run(NOW_US)
    clock.run(NOW_US + 3650 * DAY_US)
    assert run(state, shelf, 3650) == {}
    assert {path.name for path in shelf.iterdir()} == {BOAR, WALKER, NOBODY_LOOKED, PROOF}
    assert run(state, shelf, 3651) != {}


def test_an_installation_s_photo_is_kept_as_it_is_unless_a_camera_took_it(state: State, shelf: Path) -> None:
    with state.write() as connection:
        said = Installed("i", "n", "t", NOW_US, photos=[NOBODY_LOOKED, BOAR])
        connection.execute(tables.pictures.delete().where(tables.pictures.c.sha256 == BOAR))
        enter(connection, said, "小林", None, NOW_US)
        row = {"sha256": BOAR, "node": "n", "device": "cam", "content": "unsure", "withheld": False, "captured_us": NOW_US}
        connection.execute(insert(tables.pictures), row)
    run(state, shelf, 91)
    assert {path.name for path in shelf.iterdir()} == {PROOF, NOBODY_LOOKED}


def test_a_person_who_saw_somebody_in_it_makes_it_go_sooner(state: State, shelf: Path) -> None:
    with state.write() as connection:
        connection.execute(tables.pictures.update().values(confirmed_content="person_or_vehicle", confirmed_us=1))
    run(state, shelf, 31)
    assert {path.name for path in shelf.iterdir()} == {PROOF}


def test_a_file_that_nobody_knows_is_swept_when_no_sender_can_still_be_at_it(state: State, shelf: Path) -> None:
    for name, age_days in (("5" * 64, 3), ("6" * 64, 1), ("7" * 64 + ".part", 3), ("readme.txt", 9), (f"{BOAR}.clean", 9)):
        (shelf / name).write_bytes(b"x")
        os.utime(shelf / name, (NOW_US / 1e6 - age_days * 86_400,) * 2)
    run(state, shelf, 0)
    here = {path.name for path in shelf.iterdir()}
    assert {"6" * 64, "readme.txt", f"{BOAR}.clean", BOAR} <= here
    assert not {"5" * 64, "7" * 64 + ".part"} & here


def test_a_picture_that_is_sent_anew_while_it_is_forgotten_is_here_with_its_row_or_not_at_all(
    state: State, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its row's end and its file's, its sender may finish it once more, and delete its own copy."""
    content, real = b"\xff\xd8\xff\xda\0\2 somebody \xff\xd9", pictures.remove
    sha256 = hashlib.sha256(content).hexdigest()
    sender = MediaShelf(shelf, state, lambda: NOW_US)
    sender.keep(sha256, content, "image/jpeg")
    forgotten: list[str] = []

    def sent_first(state: State, folder: Path, sha256s: list[str]) -> None:
        if sha256 in sha256s:
            assert sender.find(sha256) is None
            sender.keep(sha256, content, "image/jpeg")
        forgotten.extend(sha256s)
        real(state, folder, sha256s)

    monkeypatch.setattr(pictures, "remove", sent_first)
    run(state, shelf, 31)
    assert sha256 in forgotten
    kept = sender.find(sha256)
    assert kept is not None
    assert kept.path.read_bytes() == content
    monkeypatch.undo()
    run(state, shelf, 31)
    assert (sender.find(sha256), sender.offset(sha256)) == (None, 0), "its sender begins anew"
    assert {path.name for path in shelf.iterdir()} == {BOAR, PROOF}


def test_nobody_finishes_a_picture_while_its_file_goes(state: State, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, looked = state.read, []

    def read() -> AbstractContextManager[Connection]:
        with (shelf / f"{'8' * 64}.part").open("ab") as part, pytest.raises(BlockingIOError):
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        looked.append("locked")
        return real()

    (shelf / ("8" * 64)).write_bytes(b"x")
    monkeypatch.setattr(state, "read", read)
    assert discard(state, shelf / ("8" * 64))
    assert looked == ["locked"]
    assert not list(shelf.glob("8*"))


def test_a_year_after_everything_what_was_told_is_gone_and_the_papers_stay(tmp_path: Path) -> None:
    with Searching(tmp_path) as town:
        fill(town)
        with town.state.write() as connection:
            connection.execute(tables.pages.update().values(state="closed", closed_us=town.now_us))
            connection.execute(tables.alerts.update().values(state="resolved", resolved_us=town.now_us))
            # One of no page, that nobody could be reached with: that it failed is no reason to keep it for ever.
            connection.execute(tables.notifications.update().values(state="dead", page=None))
        before = rows_of(town)
        telemetry = Telemetry()
        Retention(town.state, KeepConfig(), None, telemetry).run(NOW_US + 400 * DAY_US)
        after = rows_of(town)
        for gone in GONE:
            assert after[gone] == [], gone
        for kept in ("visits", "captures", "recounts", "contacts", "watched", "tags", "audit"):
            assert after[kept] == before[kept], kept
        assert telemetry.removed.labels("alerts")._value.get() > 0


def test_old_events_are_looked_for_while_others_may_write(tmp_path: Path) -> None:
    """The table of events is the largest: to go through it under the one write lock would keep alarms waiting."""
    with Searching(tmp_path) as town:
        fill(town)
        asked: list[str] = []
        listen(town.state._engine, "before_cursor_execute", lambda _c, _u, statement, *_: asked.append(statement))
        removed = Retention(town.state, KeepConfig()).run(NOW_US + 400 * DAY_US)
        assert removed["sightings"] > 0
        assert [row for row in town.rows(tables.events) if row["class"] == "sighting"] == []
        begun = ""
        for statement in asked:
            begun = statement if statement.startswith("BEGIN") else begun
            assert not (begun == "BEGIN IMMEDIATE" and "FROM events" in statement and "LIKE" in statement), statement


def test_an_error_of_the_database_names_nobody(state: State) -> None:
    """It is logged with where it happened; what was to be written are names, numbers and keys."""
    row = {"id": "c", "name": "花山ハナ乃", "language": "ja", "created_us": 1, "created_by": "test"}
    with pytest.raises(IntegrityError) as caught, state.write() as connection:
        connection.execute(insert(tables.contacts), [row, row])
    assert "花山" not in "".join(format_exception(caught.value))


def test_what_is_open_does_not_go_by_its_age(tmp_path: Path) -> None:
    with Searching(tmp_path) as town:
        alert = town.misses()
        town.tick()
        Retention(town.state, KeepConfig()).run(NOW_US + 800 * DAY_US)
        assert [row["id"] for row in town.rows(tables.alerts)] == [alert.id]
        assert len(town.rows(tables.pages)) == 1


def test_what_a_node_should_run_and_its_last_certificate_stay(state: State, tmp_path: Path) -> None:
    with state.write() as connection:
        for number in (1, 2):
            connection.execute(
                insert(tables.desired),
                {"node": "n", "revision": number, "payload": "{}", "sha256": "", "created_us": number, "created_by": ""},
            )
            connection.execute(
                insert(tables.certificates), {"serial": str(number), "node": "n", "issued_us": number, "not_after_us": number}
            )
    run(state, tmp_path, 0)
    with state.read() as connection:
        assert list(connection.scalars(select(tables.desired.c.revision))) == [2]
        assert list(connection.scalars(select(tables.certificates.c.serial))) == ["2"]


def test_people_go_first_and_the_old_name_says_where_it_went() -> None:
    with pytest.raises(ValidationError, match="pictures_of_people can't be longer"):
        KeepConfig.model_validate({"pictures": "10d", "pictures_of_people": "20d"})
    with pytest.raises(ValidationError, match=r"now `sightings` of \[keep\]"):
        MimamoriConfig.model_validate({"keep_sightings": "14d"})


def test_every_setting_is_of_a_kind_that_says_itself_in_two_languages() -> None:
    settings = set(KeepConfig.model_fields) - {"erasures_file"}
    assert {kind.setting for kind in KINDS} - {None} == settings
    assert all(kind.what and kind.ja and (kind.setting or kind.why) for kind in KINDS)


class Event:
    def __init__(self, class_: str, tag: str | None = None) -> None:
        self.class_ = class_
        if tag is not None:
            self.tag = tag


@pytest.mark.parametrize(
    ("event", "days", "kind"),
    [
        (Event("sighting", "t"), 13, None),
        (Event("sighting", "t"), 15, "sightings"),
        (Event("alarm", "t"), 15, "sightings"),
        (Event("evidence"), 900, None),
        (Event("evidence"), 1100, "events"),
        (Event("alarm"), 5000, None),
    ],
)
def test_what_is_too_old_when_it_comes(event: Any, days: int, kind: str | None) -> None:
    assert late_by(KeepConfig())(event, NOW_US - days * DAY_US, NOW_US) == kind


# --- The command line -----------------------------------------------------------------------------------

CONFIG = """
broker = {{ url = "mqtt://127.0.0.1:9" }}
state = {{ url = "sqlite:///{folder}/state.db" }}
store = {{ type = "sqlite", path = "{folder}/series.db" }}
api = {{ tokens_file = "{folder}/tokens" }}
media = {{ folder = "{folder}/media" }}
people = {{ public_url = "https://gateway.example", folder = "{folder}", office = "office", town = "里山市" }}
group.office = {{ label = "里山市農林課" }}
keep = {{ sightings = "7d", pictures_of_people = "10d", erasures_file = "{folder}/elsewhere" }}
deployment = [
  {{ node = "tsubaki", device = "tags", kind = "tags", place = "つばきの家" }},
  {{ node = "kita", device = "cam", kind = "camera", place = "北尾根", keep_pictures = "200d" }},
]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG.format(folder=tmp_path), encoding="utf-8")
    return path


def test_somebody_is_erased_at_the_command_line_and_only_with_yes(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = open_state(f"sqlite:///{config.parent / 'state.db'}")
    with state.write() as connection:
        connection.execute(
            insert(tables.watched),
            {"id": "ab" * 8, "name": "花山", "family": "f", "homes": "[]", "created_us": 0, "created_by": ""},
        )
    state.close()
    assert main(["erase", "watched", str(config), "ab" * 8]) == 2
    assert "--yes" in capsys.readouterr().err
    assert main(["erase", "watched", str(config), "ab" * 8, "--yes", "--rewrite"]) == 0
    assert json.loads((config.parent / "elsewhere").read_text(encoding="utf-8"))["thing"] == "ab" * 8
    assert found_in(config.parent, ["花山"]) == []
    capsys.readouterr()
    assert main(["erase", "watched", str(config), "ab" * 8, "--yes"]) == 1
    assert "nobody with this id" in capsys.readouterr().err


def test_the_report_says_each_kind(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keep", "report", str(config)]) == 0
    said = capsys.readouterr().out
    assert "sightings (where tags were, and what search cases say): 7 days" in said
    assert all(kind.name in said for kind in KINDS)


def test_the_drafts_say_what_is_configured(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draft", "file-register", str(config)]) == 0
    said = capsys.readouterr().out
    for part in (
        "見守りタグ利用者ファイル",
        "野生動物監視カメラ画像ファイル",
        "検知と場所: 7日",
        "北尾根の画像: 200日(人が写っていないもの)",
        "里山市農林課",
        "里山市",
    ):
        assert part in said
    assert "わな見回り" not in said  # no trap is configured
    out = config.parent / "sign.html"
    assert main(["draft", "camera-sign", str(config), "--place", "<北尾根>", "--out", str(out)]) == 0
    sign = out.read_text(encoding="utf-8")
    for part in ("里山市", "10日後に消去", "deleted after 10 days", "&lt;北尾根&gt;", "<svg", "https://gateway.example"):
        assert part in sign
    here = config.parent / "here.html"
    assert main(["draft", "camera-sign", str(config), "--place", "北尾根", "--out", str(here)]) == 0
    sign = here.read_text(encoding="utf-8")
    assert "200日後に消去" in sign, "as that camera's deployment says"
    assert "10日後に消去" in sign, "who is in a picture goes as everywhere"
    capsys.readouterr()
    assert main(["draft", "camera-sign", str(config), "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
