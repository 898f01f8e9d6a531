"""A backup goes back onto an empty machine, whole or visibly not, and nobody who was erased comes back with it."""

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from gateway.backup import backup
from gateway.backup.backup import newest
from gateway.config import load
from gateway.state import open_state, tables
from tests.gateway.backup.saved import (
    SECRET,
    files_of,
    furnished,
    gateway,
    killed_when,
    pictures,
    said,
    started,
    tables_of,
    upgraded_to,
    written,
)
from tests.gateway.town import Town, batch, birth, covered, event, reading

pytestmark = pytest.mark.sqlite_only("it is SQLite's file that is copied")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A backup of a small gateway, whose folder is `old`."""
    config = furnished(tmp_path / "old")
    pictures(tmp_path / "old", 2)
    (tmp_path / "disk").mkdir()
    return backup.make(load(config), config, tmp_path / "disk", 1_780_434_720_000_000).folder


def test_a_trial_says_what_would_be_written_where_and_writes_nothing(saved: Path, tmp_path: Path) -> None:
    there = written(tmp_path / "new")
    tried = said("restore", there, saved, "--dry-run")
    assert tried["writes"]["state.db"] == str(tmp_path / "new/state.db")
    assert tried["writes"]["settings/contact.office.secret_file"] == str(tmp_path / "new/etc/hook")
    assert list(files_of(tmp_path / "new")) == ["gateway.toml"]


def test_where_series_are_on_a_server_all_else_comes_back_and_that_is_said(tmp_path: Path) -> None:
    config = furnished(tmp_path / "old")
    token = tmp_path / "old/etc/hook"
    server = f'store = {{ type = "influxdb", url = "http://127.0.0.1:9", org = "town", bucket = "town", token_file = "{token}" }}'
    config.write_text("\n".join([server, *(line for line in config.read_text().splitlines() if not line.startswith("store"))]))
    (tmp_path / "disk").mkdir()
    folder = backup.make(load(config), config, tmp_path / "disk", 1_780_434_720_000_000).folder
    there = tmp_path / "new/gateway.toml"
    there.parent.mkdir()
    there.write_text(config.read_text().replace(str(tmp_path / "old"), str(tmp_path / "new")))
    tried = said("restore", there, folder, "--dry-run")
    assert any("store" in note for note in tried["notes"])
    said("restore", there, folder)
    assert tables_of(tmp_path / "new/state.db").keys() == tables_of(tmp_path / "old/state.db").keys()


def test_on_the_gateways_own_machine_a_trial_is_noted_and_nothing_else_is_touched(saved: Path, tmp_path: Path) -> None:
    config = tmp_path / "old/gateway.toml"
    tried = said("restore", config, saved, "--dry-run")
    assert tried["noted"] is True
    assert {one.partition(":")[0] for one in tried["in_the_way"]} == {"state.url", "store.path", "media.folder"}
    assert [row[0] for row in tables_of(tmp_path / "old/state.db")["cursors"]] == ["restore_tested_us"]


@pytest.mark.parametrize(
    ("there", "named"),
    [("state.db", "state.url"), ("series.db", "store.path"), ("state.db-wal", "state.url"), ("media/x", "media.folder"),
     ("etc/hook", "contact.office.secret_file")],
)  # fmt: skip
def test_where_something_is_already_it_is_named_and_stays(saved: Path, tmp_path: Path, there: str, named: str) -> None:
    config, path = written(tmp_path / "new"), tmp_path / "new" / there
    path.parent.mkdir(exist_ok=True)
    path.write_text("somebody's")
    refused = said("restore", config, saved, code=1)
    assert "empty machine" in refused["error"]
    assert [one for one in refused["in_the_way"] if one.startswith(f"{named}: ")]
    assert set(files_of(tmp_path / "new")) == {"gateway.toml", there}
    assert path.read_text() == "somebody's"


def test_a_secret_that_is_there_already_and_the_same_is_no_hindrance(saved: Path, tmp_path: Path) -> None:
    config = written(tmp_path / "new")
    (tmp_path / "new/etc").mkdir()
    (tmp_path / "new/etc/hook").write_text(SECRET)
    said("restore", config, saved)
    assert tables_of(tmp_path / "new/state.db")["media"] == tables_of(tmp_path / "old/state.db")["media"] != []
    assert (tmp_path / "new/etc/hook").read_text() == SECRET


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other_rows(folder: Path) -> None:
    """As if a table had lost a row before its hash was taken."""
    path = folder / "manifest.json"
    body = json.loads(path.read_text())
    body["state"]["rows"]["media"] += 1
    path.write_text(json.dumps(body))


def newer(folder: Path) -> None:
    path = folder / "manifest.json"
    body = json.loads(path.read_text())
    body["state"]["revision"] = "9999"
    path.write_text(json.dumps(body))


@pytest.mark.parametrize(
    ("harm", "names"),
    [
        (lambda folder: flipped(folder / "state.db"), "state.db is not what was saved"),
        (lambda folder: (folder / "series.db").unlink(), "series.db can't be read"),
        (lambda folder: (folder / "settings/api.tokens_file").write_bytes(b""), "settings/api.tokens_file"),
        (other_rows, "the table media has 2 rows, the manifest says 3"),
        (newer, "newer satomori"),
    ],
    ids=["state", "series", "secret", "rows", "newer"],
)
def test_a_backup_that_is_not_what_was_saved_is_refused_with_what_is_wrong(
    saved: Path, tmp_path: Path, harm: Callable[[Path], None], names: str
) -> None:
    harm(saved)
    config = written(tmp_path / "new")
    assert names in str(said("restore", config, saved, "--dry-run", code=1)["faults"])
    assert said("restore", config, saved, code=1)["faults"]
    assert list(files_of(tmp_path / "new")) == ["gateway.toml"]


def test_a_damaged_picture_is_a_fault_in_a_trial_and_keeps_nothing_else_from_coming_back(saved: Path, tmp_path: Path) -> None:
    """On the day that it is needed there is no other."""
    rotten, gone = sorted((saved / "media").iterdir())
    flipped(rotten)
    gone.unlink()
    config = written(tmp_path / "new")
    tried = said("restore", config, saved, "--dry-run", code=1)
    assert (tried["faults"], tried["damaged"]) == ([], [f"media/{rotten.name}", f"media/{gone.name}"])
    done = said("restore", config, saved)
    assert [note for note in done["notes"] if rotten.name in note]
    assert list((tmp_path / "new/media").iterdir()) == []
    assert len(tables_of(tmp_path / "new/state.db")["media"]) == 2, "it is known that they were there"


def test_keys_come_back_with_the_rights_they_had_also_where_they_lie_already(saved: Path, tmp_path: Path) -> None:
    """A secret that others can read is refused at the start, and so is a folder of keys that others can enter."""
    config = written(tmp_path / "new")
    for name, content in (("etc/hook", SECRET.encode()), ("people/a-key", b"invented key")):
        path = tmp_path / "new" / name
        path.parent.mkdir(mode=0o755)
        path.write_bytes(content)
        path.chmod(0o644)
    said("restore", config, saved)
    for part in ("etc", "people"):
        assert files_of(tmp_path / "new" / part) == files_of(tmp_path / "old" / part)
    assert (tmp_path / "new/people").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_gives_keys_and_their_folder_back_to_whose_they_were(tmp_path: Path) -> None:
    """A broker of another user comes in by the folder's group, where its keys are another's."""
    config = furnished(tmp_path / "old")
    os.chown(tmp_path / "old/people", 7001, 7002)
    (tmp_path / "old/people").chmod(0o750)
    os.chown(tmp_path / "old/people/a-key", 7001, 7003)
    (tmp_path / "disk").mkdir()
    folder = Path(said("backup", config, tmp_path / "disk")["folder"])
    said("restore", written(tmp_path / "new"), folder)
    assert [(of.st_uid, of.st_gid, of.st_mode & 0o777) for of in
            ((tmp_path / "new/people").stat(), (tmp_path / "new/people/a-key").stat())] == [
        (7001, 7002, 0o750), (7001, 7003, 0o400),
    ]  # fmt: skip


def test_a_manifest_leads_nowhere_but_into_its_folder(saved: Path, tmp_path: Path) -> None:
    path = saved / "manifest.json"
    path.write_text(path.read_text().replace("settings/api.tokens_file", "../../etc/passwd"))
    assert "leads out of the backup" in said("restore", written(tmp_path / "new"), saved, code=2)["error"]


def test_killed_in_the_middle_no_gateway_starts_on_half_of_it_and_the_same_again_ends_it(tmp_path: Path) -> None:
    config = furnished(tmp_path / "old")
    pictures(tmp_path / "old", 300)
    (tmp_path / "disk").mkdir()
    folder = backup.make(load(config), config, tmp_path / "disk", 1_780_434_720_000_000).folder
    there, new = written(tmp_path / "new"), tmp_path / "new"
    killed_when(started("restore", there, folder), lambda: len(list(new.glob("media/*"))) > 20)
    assert not (new / "state.db").exists()
    for asked in ("run", "check"):
        assert "a restore was begun here and has not ended" in said(asked, there, code=2)["error"]
    (tmp_path / "disk2").mkdir()
    other = backup.make(load(config), config, tmp_path / "disk2", 1_780_434_721_000_000).folder
    assert "another backup" in str(said("restore", there, other, code=1)["in_the_way"])
    said("restore", there, folder)
    assert files_of(new / "media") == files_of(tmp_path / "old/media")
    assert {name for name in files_of(new) if "restor" in name} == set()
    assert tables_of(new / "state.db")["media"] == tables_of(tmp_path / "old/state.db")["media"]


def test_records_from_before_are_known_and_what_was_acknowledged_after_it_is_recorded_as_lost(tmp_path: Path) -> None:
    """The edge deletes what is acknowledged: what the backup has not of it is nowhere any more, and that is said."""
    old, new = tmp_path / "old", tmp_path / "new"
    config = furnished(old)
    (tmp_path / "disk").mkdir()
    before = batch([reading(2)], [event(1)])
    with Town(old) as town:
        assert list(covered(town.process(birth(next_=3), before))) == [(1, 2)]
        folder = backup.make(load(config), config, tmp_path / "disk", 1_780_434_720_000_000).folder
        assert list(covered(town.process(batch([], [event(3, type_="trap_reset")])))) == [(1, 3)]
    said("restore", written(new), folder)
    with Town(new) as town:
        assert (town.seqs(), len(town.points())) == ([1], 1)
        acks = town.process(before)
        assert list(covered(acks)) == [(1, 2)], "acknowledged again"
        assert (town.seqs(), len(town.points())) == ([1], 1)
        [asked] = town.process(birth(oldest=4, next_=4, session="6" * 16))
        assert asked.missing == [(3, 3)], "asked for when the node comes again"
        town.process(batch([], [event(4)], [(3, 3, "not in the outbox")]))
        assert [(row["low"], row["high"]) for row in town.rows(tables.losses)] == [(3, 3)]
        assert town.seqs() == [1, 4]


def test_who_was_erased_after_the_backup_is_erased_again_before_the_restored_gateway_says_anything(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    config = furnished(old)
    words = ["--name", "架空ハナ乃", "--group", "farmers", "--mail", "hana@a.example"]
    groups = '\n[group]\nfarmers = { label = "わな番" }\n[channel]\nmail = { host = "mail.a.example", from = "a@a.example" }\n'
    config.write_text(config.read_text() + groups)
    id_ = said("contact", "add", config, *words)["contact"]["id"]
    (tmp_path / "disk").mkdir()
    folder = Path(said("backup", config, tmp_path / "disk")["folder"])
    said("erase", "contact", config, id_, "--yes")
    there = written(new)
    there.write_text(there.read_text() + groups)
    assert "they come back" in str(said("restore", there, folder, "--dry-run")["notes"])
    (new / "state.db.erasures").write_bytes((old / "state.db.erasures").read_bytes())
    said("restore", there, folder)
    assert "架空ハナ乃" in str(tables_of(new / "state.db")), "until a gateway starts"
    with gateway(there):
        assert "架空ハナ乃" not in str(tables_of(new / "state.db"))
    assert "架空ハナ乃".encode() not in (new / "state.db").read_bytes()
    assert (new / "state.db.erasures").read_bytes() == (old / "state.db.erasures").read_bytes()
    assert newest(tmp_path / "disk") == folder


def test_a_backup_of_an_older_version_goes_back_and_the_start_brings_it_up_to_date(tmp_path: Path) -> None:
    config = furnished(tmp_path / "old")
    (tmp_path / "old/state.db").unlink()
    upgraded_to("0005", tmp_path / "old/state.db")
    (tmp_path / "disk").mkdir()
    made = said("backup", config, tmp_path / "disk")
    assert made["noted"] is False
    with closing(sqlite3.connect(tmp_path / "old/state.db")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0005",), (
            "it is made before an upgrade"
        )
    tried = said("restore", written(tmp_path / "new"), made["folder"])
    assert [note for note in tried["notes"] if "from schema 0005 up to date" in note]
    open_state(f"sqlite:///{tmp_path}/new/state.db").close()
