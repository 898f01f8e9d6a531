"""`satomori-gateway backup` and `restore`: what they print. Both are run as the gateway's own user, or as root."""

import argparse
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, select

from gateway.backup import backup, restore
from gateway.backup.backup import MIB
from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from gateway.state.tables import cursors
from gateway.state.upsert import upsert
from gateway.terminal import Commands, Told, all_wrapped, clock_us, leaf, minute, opened
from gateway.upgrade import revision_of, revisions

MADE = "backup_us"
"""In the table `cursors`: when the last backup was made."""
_SHOWN = 20


def add_commands(commands: Commands) -> None:
    """Adds both to the program."""
    made = leaf(commands, "backup", "Save everything that a gateway is, also while it runs.", _backup)
    made.add_argument("to", type=Path, metavar="FOLDER", help="where the new folder is made: another disk")
    back = leaf(commands, "restore", "Put a backup back onto an empty machine.", _restore)
    back.add_argument("backup", type=Path, metavar="BACKUP", help="the folder that `backup` made")
    back.add_argument("--dry-run", action="store_true", help="only read all of it and say what would be written where")


def last(connection: Connection) -> tuple[int | None, int | None]:
    """When the last backup was made, and when a restore was tested last, in UTC µs; None: never."""
    found = {row.name: row.value for row in connection.execute(select(cursors).where(cursors.c.name.in_((MADE, restore.TESTED))))}
    return found.get(MADE), found.get(restore.TESTED)


def _backup(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    now_us = clock_us()
    made = backup.make(config, arguments.config, arguments.to, now_us)
    noted = _note(config, MADE, now_us)
    saved = made.manifest
    size = sum(file.size for file in saved.files)
    pictures = sum(file.setting == "media.folder" for file in saved.files)
    rows, series = sum(saved.state.rows.values()), sum((saved.store.rows or {}).values())
    lines = [
        f"{made.folder}: {size // MIB} MiB; {rows} rows of state, {series} of series, {pictures} pictures",
        "It holds the gateway's keys and secrets, and what it knows of people: keep it as you keep the gateway.",
        *(f"not in it: {what}: {why}" for what, why in saved.left_out.items()),
    ]
    if saved.absent:
        lines.append(f"!!  {len(saved.absent)} pictures on record had no file, or a damaged one; the manifest names them")
    lines.append("Try it now and then: satomori-gateway restore gateway.toml BACKUP --dry-run")
    body = {"folder": str(made.folder), "bytes": size, "pictures": pictures, "absent": saved.absent, "left_out": saved.left_out,
            "rows": saved.state.rows, "noted": noted}  # fmt: skip
    return Told(0, body, all_wrapped(lines))


def _restore(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    now_us, folder = clock_us(), arguments.backup
    looked = restore.look(config, folder)
    body: dict[str, Any] = {
        "faults": looked.faults,
        "damaged": looked.damaged,
        "in_the_way": looked.in_the_way,
        "notes": looked.notes,
        "writes": {file.name: str(target) for file, target in looked.steps},
    }
    if looked.faults:
        lines = [f"NG  {fault}" for fault in looked.faults[:_SHOWN]]
        return Told(1, {**body, "error": f"{folder} can't be restored: {len(looked.faults)} faults"}, all_wrapped(lines))
    if looked.damaged and arguments.dry_run:
        lines = [f"NG  {name} is not what was saved" for name in looked.damaged[:_SHOWN]]
        error = (
            f"{folder} would come back without {len(looked.damaged)} pictures: make another backup while there are others of them"
        )
        return Told(1, {**body, "error": error}, all_wrapped(lines))
    made = minute(looked.manifest.made_us, ZoneInfo(config.time_zone))
    if arguments.dry_run:
        body["noted"] = _note(config, restore.TESTED, now_us)
        lines = [f"OK  {folder}, made {made} by satomori {looked.manifest.satomori}: whole; every file and row is there"]
        lines += [f"would write {line}" for line in _where(looked)]
        lines += [f"in the way here: {one}" for one in looked.in_the_way]
        lines += [f"note: {note}" for note in looked.notes]
        return Told(0, body, all_wrapped(lines))
    if looked.in_the_way:
        lines = [f"NG  {one}" for one in looked.in_the_way[:_SHOWN]]
        error = "a restore goes onto an empty machine only: move away what is there, or name other places in gateway.toml"
        return Told(1, {**body, "error": error}, all_wrapped(lines))
    restore.put_back(config, folder, looked, now_us)
    lines = [f"restored what was saved at {made}", *_where(looked), *(f"note: {note}" for note in looked.notes)]
    return Told(0, body, all_wrapped(lines))


def _where(looked: restore.Looked) -> list[str]:
    """Each file with where it goes; of pictures only their folder."""
    others = [f"{file.name} to {target}" for file, target in looked.steps if file.setting != "media.folder"]
    pictures = [target for file, target in looked.steps if file.setting == "media.folder"]
    return [*others, *([f"{len(pictures)} pictures to {pictures[0].parent}"] if pictures else [])]


def _note(config: GatewayConfig, name: str, now_us: int) -> bool:
    """Writes down in the state that this was done, for `check`; False where there is no state of this version to write it to."""
    try:
        if revision_of(config.state) != revisions()[-1]:
            return False  # opening it would bring its schema up to date, which nobody asked for here
    except ConfigError:
        return False
    with opened(config) as state, state.write() as connection:
        connection.execute(upsert(cursors, "value"), {"name": name, "value": now_us})
    return True
