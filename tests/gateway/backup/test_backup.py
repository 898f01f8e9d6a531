"""A backup is one moment of a gateway that goes on working, is whole or is none, and is as secret as the gateway."""

import resource
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from sqlalchemy import insert

from edge.contract.ranges import Ranges
from gateway.backup import backup, manifest, places
from gateway.backup.backup import newest
from gateway.config import GatewayConfig, load
from gateway.state import open_state
from gateway.state.tables import tags, watched
from simulators.broker import nats
from simulators.fleet import Fleet, FleetReport
from tests.gateway.backup.saved import (
    ROOT,
    SECRET,
    command,
    files_of,
    furnished,
    gateway,
    killed_when,
    pictures,
    said,
    said_beside,
    started,
    tables_of,
    written,
)

pytestmark = pytest.mark.sqlite_only("it is SQLite's file that is copied")


def fleet(url: str, seed: int) -> Fleet:
    return Fleet(url, nodes=10, rate=100, connections=2, events=0.3, seed=seed)


def enrol(folder: Path, seed: int) -> None:
    """The tags of that fleet, so that each of its records is kept."""
    person = {"id": "ab" * 8, "name": "花山", "family": "f", "homes": "[]", "created_us": 1, "created_by": "test"}
    state = open_state(f"sqlite:///{folder}/state.db")
    with state.write() as connection:
        connection.execute(insert(watched), person)
        theirs = {"watched": person["id"], "enrolled_us": 1, "enrolled_by": "test"}
        connection.execute(insert(tags), [{"tag": f"ibeacon:fleet-{seed}-{n:04d}:1:7", **theirs} for n in range(10)])
    state.close()


def records_of(folder: Path) -> tuple[int, int]:
    """How many records of nodes a gateway's dedupe knows, and how many events and points of them it has."""
    state, series = tables_of(folder / "state.db"), tables_of(folder / "series.db")
    known = sum(high - low + 1 for _, _, body, _ in state["ranges"] for low, high in Ranges.parse(body))
    ours = {row[0] for row in series["series"] if row[1].startswith("fleet-")}
    points = {row[:2] for table in ("samples", "fresh") for row in series[table]}
    return known, len(state["events"]) + sum(number in ours for number, _ in points)


def test_a_gateway_comes_back_on_an_empty_machine_from_a_backup_that_was_made_while_it_worked(tmp_path: Path) -> None:
    old, new, disk = tmp_path / "old", tmp_path / "new", tmp_path / "disk"
    disk.mkdir()
    with nats(tmp_path / "broker") as broker:
        config = furnished(old, broker.url)
        pictures(old, 5)
        enrol(old, 7)
        reports: list[FleetReport] = []
        with gateway(config):
            town, made = fleet(broker.url, 7), threading.Event()

            def all_the_while() -> None:
                while not made.is_set():
                    reports.append(town.run(1))

            nodes = threading.Thread(target=all_the_while)
            nodes.start()
            try:
                folder = Path(said_beside("backup", config, disk)["folder"])
            finally:
                made.set()
                nodes.join()
        assert sum(report.lost for report in reports) == 0, "the backup disturbed nobody"

        known, kept = records_of(folder)
        assert 0 < known < records_of(old)[0], "it was made in the middle"
        assert known <= kept, "whatever dedupe would drop is there"
        live, saved = tables_of(old / "state.db"), tables_of(folder / "state.db")
        for table in ("events", "media", "alert_history", "notifications"):
            assert {row[0] for row in saved[table]} <= {row[0] for row in live[table]}, table

        there = written(new, broker.url)
        assert said("restore", there, folder, "--dry-run")["in_the_way"] == []
        assert [path.name for path in new.iterdir()] == ["gateway.toml"], "a trial writes nothing"
        said("restore", there, folder)
        restored = tables_of(new / "state.db")
        for table in (*restored, *saved):
            assert table == "cursors" or restored[table] == saved[table], table
        assert tables_of(new / "series.db") == tables_of(folder / "series.db")
        for part in ("etc", "media", "people"):
            assert files_of(new / part) == files_of(old / part)

        with gateway(there):
            again = fleet(broker.url, 8).run(1)
        assert again.lost == 0
        assert again.acked > 0
        assert records_of(new)[0] == known + again.acked


def test_it_is_as_secret_as_the_gateway_and_says_so(tmp_path: Path) -> None:
    config = furnished(tmp_path)
    pictures(tmp_path, 1)
    (tmp_path / "disk").mkdir()
    process = subprocess.run(command("backup", config, tmp_path / "disk"), check=True, capture_output=True, text=True, cwd=ROOT)
    assert "keys and secrets" in process.stdout
    made = newest(tmp_path / "disk")
    assert made is not None
    assert {mode for mode, _ in files_of(made).values()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (made, *made.rglob("*")) if path.is_dir()} == {0o700}
    assert files_of(made)["settings/contact.office.secret_file"][1] == SECRET.encode()


def test_what_must_outlive_a_restore_is_not_in_it(tmp_path: Path) -> None:
    config = furnished(tmp_path)
    ledger = tmp_path / "etc" / "erased"
    ledger.write_text("")
    config.write_text(config.read_text() + f'\n[keep]\nerasures_file = "{ledger}"\n')
    (tmp_path / "disk").mkdir()
    made = said("backup", config, tmp_path / "disk")
    assert "erased stays erased" in made["left_out"]["keep.erasures_file"]
    assert not [name for name in files_of(Path(made["folder"])) if "eras" in name]


def test_pictures_are_shared_with_the_backup_before_and_one_that_is_gone_is_named(tmp_path: Path) -> None:
    config = furnished(tmp_path)
    kept, gone, rotten = pictures(tmp_path, 3)
    (tmp_path / "disk").mkdir()
    first = backup.make(load(config), config, tmp_path / "disk", 1_780_434_720_000_000).folder
    (tmp_path / "media" / gone).unlink()
    new = pictures(tmp_path, 1)[0]
    (tmp_path / "media" / new).write_bytes(b"what a failing disk made of it")
    made = said("backup", config, tmp_path / "disk")
    second = Path(made["folder"])
    assert made["absent"] == sorted([gone, new])
    assert {path.name for path in (second / "media").iterdir()} == {kept, rotten}
    assert (first / "media" / kept).samefile(second / "media" / kept)
    assert said("restore", config, first, "--dry-run")["faults"] == []
    assert said("restore", config, second, "--dry-run")["faults"] == []


def test_what_the_backups_disk_lost_of_a_picture_is_not_handed_on_to_the_next_backup(tmp_path: Path) -> None:
    config = furnished(tmp_path)
    [name] = pictures(tmp_path, 1)
    (tmp_path / "disk").mkdir()
    first = backup.make(load(config), config, tmp_path / "disk", 1_780_434_720_000_000).folder / "media" / name
    first.write_bytes(bytes(first.stat().st_size))
    second = backup.make(load(config), config, tmp_path / "disk", 1_780_434_721_000_000).folder
    assert (second / "media" / name).read_bytes() == (tmp_path / "media" / name).read_bytes()
    assert said("restore", config, second, "--dry-run")["faults"] == []


def test_a_key_that_is_renamed_while_its_folder_is_read_disturbs_no_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway writes each beside its place, and renames it."""
    config, copy = furnished(tmp_path), manifest.copy
    (tmp_path / "people/b-key.new").write_text("half a key")
    (tmp_path / "disk").mkdir()

    def meanwhile(source: Path, target: Path) -> tuple[str, int]:
        if source.name == "b-key.new":
            source.unlink()
        return copy(source, target)

    monkeypatch.setattr(manifest, "copy", meanwhile)
    folder = Path(said("backup", config, tmp_path / "disk")["folder"])
    assert [path.name for path in (folder / "settings/people.folder").iterdir()] == ["a-key"]
    assert said("restore", config, folder, "--dry-run")["faults"] == []


def test_killed_in_the_middle_it_is_no_backup_and_the_next_one_clears_up(tmp_path: Path) -> None:
    config, disk = furnished(tmp_path), tmp_path / "disk"
    pictures(tmp_path, 300)
    disk.mkdir()
    killed_when(started("backup", config, disk), lambda: any(disk.glob("*/media/*")))
    [left] = disk.iterdir()
    assert left.suffix == ".partial"
    assert newest(disk) is None
    assert "it was interrupted" in said("restore", config, left, code=2)["error"].replace("Was it", "it was")
    made = said("backup", config, disk)
    assert [path.name for path in disk.iterdir()] == [Path(made["folder"]).name]
    assert made["pictures"] == 300


def test_where_the_disk_takes_no_more_it_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    config, disk = furnished(tmp_path), tmp_path / "disk"
    pictures(tmp_path, 1, size=4_000_000)
    disk.mkdir()
    limit = 3_000_000
    process = subprocess.run(
        command("backup", config, disk), check=False, capture_output=True, text=True, cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert process.returncode == 1
    assert "File too large" in process.stderr
    assert list(disk.iterdir()) == []


def test_without_a_state_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    config = furnished(tmp_path)
    (tmp_path / "state.db").unlink()
    (tmp_path / "disk").mkdir()
    assert "there is nothing to back up" in said("backup", config, tmp_path / "disk", code=2)["error"]
    assert not (tmp_path / "state.db").exists()
    assert "is no folder" in said("backup", config, tmp_path / "nowhere", code=2)["error"]


def paths_in(model: type[BaseModel], at: str = "") -> Iterator[str]:
    """Every setting of the configuration that names a file or folder, with `*` for names of the operator's."""
    for name, field in model.model_fields.items():
        here = f"{at}{field.alias or name}"
        if "Path" in str(field.annotation):
            yield here
        for part in _models(field.annotation):
            yield from paths_in(part, f"{here}.")


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def test_it_is_decided_of_every_setting_that_names_a_file_whether_it_is_saved() -> None:
    known = {*places.FOLDERS, *places.OF_ITS_OWN, *places.LEFT_OUT}
    undecided = {setting for setting in paths_in(GatewayConfig) if not setting.endswith("_file")} - known
    assert undecided == set(), "a folder or a file of another kind: see gateway.backup.places"
    assert known <= set(paths_in(GatewayConfig))
