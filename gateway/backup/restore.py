"""Putting a backup back onto an empty machine, and trying beforehand, without changing anything, whether that would do.

    <media folder>/restore-unfinished.json   from the first file to the last: with it no gateway starts
    <file>.restoring                         one that is being written; whole, it gets its name

The state database comes last. A restore that was interrupted is gone on with by asking for the same again.
"""

import grp
import json
import os
import pwd
import shutil
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gateway.backup import manifest, places, postgresql, sqlite_file
from gateway.backup.backup import MIB, STATE, sqlite_path
from gateway.backup.manifest import MEDIA, SETTINGS, File, Folder, Manifest
from gateway.config import GatewayConfig, StateConfig
from gateway.errors import ConfigError
from gateway.store import SqliteStoreConfig
from gateway.store import sqlite as series
from gateway.upgrade import revisions

MARKER = "restore-unfinished.json"
RESTORING = ".restoring"
_NOTES = "cursors"
TESTED = "restore_tested_us"
"""In the table `cursors`: when a backup was last tried, or put back."""


class Step(NamedTuple):
    """One file, and where it goes."""

    file: File
    target: Path


@dataclass
class Looked:
    """What a look at a backup, and at the machine, found. Nothing was changed by it."""

    manifest: Manifest
    steps: list[Step] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Of the backup: it can't be put back anywhere."""
    damaged: list[str] = field(default_factory=list)
    """Pictures of the backup that are not what was saved: what else there is comes back without them."""
    in_the_way: list[str] = field(default_factory=list)
    """Of this machine: it can't be put back here."""
    notes: list[str] = field(default_factory=list)
    """What whoever restores should know."""


def unfinished(config: GatewayConfig) -> None:
    """ConfigError where a restore was begun here and has not come to its end: half a town would look like one."""
    if (marker := config.media.folder / MARKER).exists():
        raise ConfigError(f"a restore was begun here and has not ended ({marker}): run the same satomori-gateway restore again")


def look(config: GatewayConfig, folder: Path) -> Looked:
    """Reads all of a backup, and looks whether it could be put back here. ConfigError where the folder is no backup."""
    looked = Looked(manifest.read(folder))
    _whole(folder, looked)
    _state_is_right(config, folder, looked)
    _series_are_right(config, folder, looked)
    looked.steps = list(_steps(config, looked))
    _place_is_empty(config, looked)
    _rights_can_be_given(config, looked)
    _has_room(looked)
    _told_besides(config, looked)
    return looked


def put_back(config: GatewayConfig, folder: Path, looked: Looked, now_us: int) -> None:
    """Writes everything. Of a look without a fault and with nothing in the way. ConfigError, OSError; then the marker stays."""
    media, made = config.media.folder, looked.manifest
    owner = next((step.file.owner for step in looked.steps if step.file.setting in ("media.folder", "state.url")), None)
    _make_folder(media, owner)
    marker = media / MARKER
    with marker.open("w", encoding="utf-8") as file:
        json.dump({"made_us": made.made_us}, file)
        file.flush()
        os.fsync(file.fileno())
    manifest.sync_folder(media)
    # The database comes last: until then there is nothing that a gateway could take for its own.
    databases = [step for step in looked.steps if step.file.setting == "state.url"]
    for step in looked.steps:
        if step not in databases:
            _write(folder, step, now_us)
    for path, was in _key_folders(config, looked):
        _make_folder(path, was.owner)
        _as_it_was(path, was)
    for step in databases:
        _write(folder, step, now_us)
    if made.state.engine == "postgresql":
        _dump_back(config.state, folder, made, now_us)
    for written in {step.target.parent for step in looked.steps}:
        manifest.sync_folder(written)
    marker.unlink()
    manifest.sync_folder(media)


# --- Looking ------------------------------------------------------------------------------------------


def _whole(folder: Path, looked: Looked) -> None:
    for file in looked.manifest.files:
        path = folder / file.name
        try:
            fine = path.stat().st_size == file.size and manifest.hash_of(path) == file.sha256
        except OSError as error:
            if file.setting == "media.folder":
                looked.damaged.append(file.name)
            else:
                looked.faults.append(f"{file.name} can't be read: {error.strerror}")
            continue
        if not fine and file.setting == "media.folder":
            looked.damaged.append(file.name)
        elif not fine:
            looked.faults.append(f"{file.name} is not what was saved: its SHA-256 differs. Take another backup")


def _state_is_right(config: GatewayConfig, folder: Path, looked: Looked) -> None:
    state = looked.manifest.state
    here = "sqlite" if sqlite_path(config.state.url) else "postgresql"
    if here != state.engine:
        looked.faults.append(f"state.url is {here} here, and was {state.engine} in the backup: it goes back to one only")
        return
    if state.revision not in revisions():
        looked.faults.append(f"it was made by a newer satomori (schema {state.revision}): install that version first")
    name = _name_of(looked, "state.url")
    if name is None or any(name in fault for fault in looked.faults):
        return
    if state.engine == "postgresql":
        if wrong := postgresql.fault(folder / name):
            looked.faults.append(f"{name}: {wrong}")
        return
    _opens(folder / name, state.rows, state.revision, looked)


def _series_are_right(config: GatewayConfig, folder: Path, looked: Looked) -> None:
    rows = looked.manifest.store.rows
    if looked.manifest.store.type != config.store.type:
        looked.faults.append(f"store.type is {config.store.type} here, and was {looked.manifest.store.type} in the backup")
        return
    if not isinstance(config.store, SqliteStoreConfig):
        return  # a server's is its own tool's to bring back: the notes say so
    name = _name_of(looked, "store.path")
    if rows is None or name is None or any(name in fault for fault in looked.faults):
        return
    held = _opens(folder / name, rows, None, looked)
    if held is not None and held.user_version > series.VERSION:
        looked.faults.append(f"{name} was made by a newer satomori (version {held.user_version}): install that version first")


def _opens(path: Path, rows: dict[str, int], revision: str | None, looked: Looked) -> sqlite_file.Held | None:
    if wrong := sqlite_file.fault(path):
        looked.faults.append(f"{path.name} is damaged: {wrong}")
        return None
    held = sqlite_file.held(path, path.name)
    if held.revision != revision:
        looked.faults.append(f"{path.name} has schema {held.revision}, the manifest says {revision}")
    looked.faults += [
        f"{path.name}: the table {table} has {held.rows.get(table)} rows, the manifest says {rows.get(table)}"
        for table in sorted(held.rows.keys() | rows.keys())
        if held.rows.get(table) != rows.get(table)
    ]
    return held


def _name_of(looked: Looked, setting: str) -> str | None:
    name = next((file.name for file in looked.manifest.files if file.setting == setting), None)
    if name is None:
        looked.faults.append(f"nothing in it is of {setting}")
    return name


def _steps(config: GatewayConfig, looked: Looked) -> Iterator[Step]:
    """Where each file goes, by the setting that this configuration has; a file that two settings name goes there once."""
    files, folders, taken = places.files(config), places.folders(config), set()
    state, damaged = sqlite_path(config.state.url), set(looked.damaged)
    for file in looked.manifest.files:
        if file.name in damaged:
            continue
        match file.setting:
            case "":
                continue  # gateway.toml: the one that was given is in use
            case "state.url":
                target = state
            case "store.path":
                target = config.store.path if isinstance(config.store, SqliteStoreConfig) else None
            case "media.folder":
                target = config.media.folder / file.name.removeprefix(f"{MEDIA}/")
            case setting if setting in folders:
                target = folders[setting] / file.name.removeprefix(f"{SETTINGS}/{setting}/")
            case setting:
                target = files.get(setting)
                if target is None:
                    looked.notes.append(f"{setting}: this gateway.toml has no such setting, so its file stays in the backup")
        if target is not None and target.absolute() not in taken:
            taken.add(target.absolute())
            yield Step(file, target)


def _place_is_empty(config: GatewayConfig, looked: Looked) -> None:
    if _is_going_on(config, looked):
        return
    way = looked.in_the_way
    databases = ("state.url", "store.path")
    for file, target in looked.steps:
        if file.setting in databases:
            found = [path for path in (target, *(target.with_name(f"{target.name}{end}") for end in ("-wal", "-journal")))
                     if path.exists()]  # fmt: skip
            way += [f"{file.setting}: {path} is there already" for path in found]
        elif file.setting != "media.folder" and target.exists() and not _is_same(file, target):
            way.append(f"{file.setting}: {target} is there already, and is another one")
    folder = config.media.folder
    if folder.is_dir() and any(path.name != MARKER for path in folder.iterdir()):
        way.append(f"media.folder: there is something in {folder}")
    if looked.manifest.state.engine == "postgresql" and not sqlite_path(config.state.url):
        try:
            if postgresql.held(config.state).rows:
                way.append("state.url: there are tables in the database already")
        except ConfigError as error:
            way.append(str(error))


def _is_going_on(config: GatewayConfig, looked: Looked) -> bool:
    """Whether an earlier restore of this same backup was interrupted here: what is there is its own."""
    marker = config.media.folder / MARKER
    try:
        made_us = json.loads(marker.read_bytes())["made_us"]
    except (OSError, ValueError, KeyError, TypeError):
        return False  # there is none, or it was interrupted with its first breath: nothing else was written yet
    if made_us != looked.manifest.made_us:
        looked.in_the_way.append(f"a restore of another backup has not ended here ({marker}): go on with that one")
    return True


def _is_same(file: File, target: Path) -> bool:
    try:
        return target.stat().st_size == file.size and manifest.hash_of(target) == file.sha256
    except OSError:
        return False


def _rights_can_be_given(config: GatewayConfig, looked: Looked) -> None:
    """Only root can give files away; anybody else restores as who is to have them, and may change what is their own."""
    folders = list(_key_folders(config, looked))
    if os.geteuid() != 0:
        there = [(target, file.mode) for file, target in looked.steps] + [(path, was.mode) for path, was in folders]
        for path, mode in there:
            if path.exists() and _mode(path) != mode and path.stat().st_uid != os.geteuid():
                looked.in_the_way.append(f"{path} is there already, is another user's, and has not the mode {mode:o} that it had")
        return
    for owner in sorted({file.owner for file, _ in looked.steps} | {was.owner for _, was in folders}):
        if _ids(owner) is None:
            looked.in_the_way.append(f"there is no {owner} here, whose files these were: make that user and group first")


def _key_folders(config: GatewayConfig, looked: Looked) -> Iterator[tuple[Path, Folder]]:
    """Those of this configuration that are in the backup, and how they were."""
    for setting, path in places.folders(config).items():
        if setting in looked.manifest.folders:
            yield path, looked.manifest.folders[setting]


def _ids(owner: str) -> tuple[int, int] | None:
    user, _, group = owner.partition(":")
    try:
        return (
            int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid,
            int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid,
        )
    except KeyError:
        return None


def _has_room(looked: Looked) -> None:
    """On each disk; and whether this user may write there."""
    needed: Counter[int] = Counter()
    at: dict[int, Path] = {}
    shut = set()
    for file, target in looked.steps:
        parent = next(path for path in target.absolute().parents if path.is_dir())
        if not os.access(parent, os.W_OK | os.X_OK):
            shut.add(parent)
        disk = parent.stat().st_dev
        at.setdefault(disk, parent)
        needed[disk] += 0 if target.exists() else file.size
    looked.in_the_way += [f"this user may not write in {parent}" for parent in sorted(shut)]
    for disk, size in needed.items():
        free = shutil.disk_usage(at[disk]).free
        if free < size:
            looked.in_the_way.append(f"{at[disk]} has {free // MIB} MiB free, and {-(-size // MIB)} are needed: make room there")


def _told_besides(config: GatewayConfig, looked: Looked) -> None:
    saved = {file.setting for file in looked.manifest.files} | looked.manifest.folders.keys()
    for setting, path in (places.files(config) | places.folders(config)).items():
        if setting not in saved:
            looked.notes.append(f"{setting}: {path} is not in the backup: put it there yourself")
    looked.notes += [f"{what}: not in the backup; {why}" for what, why in looked.manifest.left_out.items() if what == "store"]
    if looked.damaged:
        names = ", ".join(looked.damaged[:3]) + (" and others" if len(looked.damaged) > 3 else "")
        looked.notes.append(f"{len(looked.damaged)} pictures are damaged in the backup, and stay there: {names}")
    if looked.manifest.absent:
        looked.notes.append(f"{len(looked.manifest.absent)} pictures on record were gone already, or damaged, when it was made")
    ledger = _erasures_file(config)
    if ledger.exists():
        looked.notes.append(f"who stands in {ledger} and comes back with this is erased again at the next start")
    else:
        looked.notes.append(
            f"{ledger} is not there: if somebody was erased after this backup, they come back. "
            "Put that file there before the gateway starts"
        )
    if looked.manifest.state.revision != revisions()[-1]:
        looked.notes.append(f"the next start brings the database from schema {looked.manifest.state.revision} up to date")


def _erasures_file(config: GatewayConfig) -> Path:
    """Where erasures are written down. With a database on a server the setting is required."""
    return config.keep.erasures_file or Path(f"{sqlite_path(config.state.url)}.erasures")


# --- Writing ------------------------------------------------------------------------------------------


def _write(folder: Path, step: Step, now_us: int) -> None:
    file, target = step
    if _is_same(file, target):
        _as_it_was(target, file)
        return
    _make_folder(target.parent, file.owner)
    work = target.with_name(target.name + RESTORING)
    if manifest.copy(folder / file.name, work) != (file.sha256, file.size):
        raise ConfigError(f"{folder / file.name} changed since it was looked at, or its disk fails: nothing more is put back")
    if file.name == STATE:
        with closing(sqlite3.connect(work)) as connection, connection:
            connection.execute("INSERT OR REPLACE INTO cursors (name, value) VALUES (?, ?)", (TESTED, now_us))
    _as_it_was(work, file)
    work.rename(target)


def _dump_back(state: StateConfig, folder: Path, made: Manifest, now_us: int) -> None:
    name = next(file.name for file in made.files if file.setting == "state.url")
    found = postgresql.held(state).rows
    if not found:  # an interrupted one left all of it, or nothing
        postgresql.restore(state, folder / name)
        found = postgresql.held(state).rows
    if {**found, _NOTES: 0} != {**made.state.rows, _NOTES: 0}:  # where it is noted that this was done
        raise ConfigError("state.url: the database holds other rows than the backup: empty it, and say the same again")
    with postgresql.connected(state) as connection:
        note = "INSERT INTO cursors (name, value) VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        connection.execute(note, (TESTED, now_us))


def _make_folder(path: Path, owner: str | None) -> None:
    """With those above it, where they are not there."""
    for one in [*reversed(path.absolute().parents), path]:
        if not one.exists():
            one.mkdir(mode=0o750)
            _give(one, owner)


def _as_it_was(path: Path, was: File | Folder) -> None:
    _give(path, was.owner)
    if _mode(path) != was.mode:
        path.chmod(was.mode)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _give(path: Path, owner: str | None) -> None:
    """Where root restores, everything is as it was; anybody else restores as who is to have it."""
    if os.geteuid() == 0 and owner is not None and (ids := _ids(owner)) is not None:
        os.chown(path, *ids)
