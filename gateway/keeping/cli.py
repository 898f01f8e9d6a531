"""`satomori-gateway keep`, `erase` and `draft`: one function a command, and what it prints.

They work on the database of a gateway that runs: run them as its user.
"""

import argparse
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import func, select

from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from gateway.keeping import late, register
from gateway.keeping.erase import ERASE, NotErased, erasing, tag_sha256
from gateway.keeping.kinds import KINDS
from gateway.keeping.sign import sign
from gateway.state.tables import removals
from gateway.terminal import Commands, Told, all_wrapped, branch, clock_us, day, leaf, opened, who

DAY_US = 86_400 * 1_000_000
SHOWN_US = 30 * DAY_US


def add_commands(commands: Commands) -> None:
    """Adds them to the program; the function of the one that is chosen is in `arguments.act`."""
    keep = branch(commands, "keep", "What is kept, and how long.")
    leaf(keep, "report", "Say of each kind how long it is kept, what there is, and what was forgotten.", _report)
    erase = branch(commands, "erase", "Erase everything that concerns somebody, also in what is restored later.")
    for name, text, thing in (
        ("watched", "Who is watched over, with their tags.", "the person's id"),
        ("contact", "Somebody who is told, with their account.", "the contact's id; see contact list"),
        ("tag", "A tag: where it was, its label and its key.", "the tag's name, as records have it"),
    ):
        one = leaf(erase, name, text, _erase)
        one.add_argument("id", metavar="ID", help=thing)
        one.add_argument("--yes", action="store_true", help="really; it can't be undone")
        one.add_argument(
            "--rewrite",
            action="store_true",
            help="then write the whole database anew, for one that an earlier release has filled",
        )
    draft = branch(commands, "draft", "Papers for the town to finish, from what is configured.")
    file_register = leaf(draft, "file-register", "個人情報ファイル簿, in Japanese.", _file_register)
    file_register.add_argument("--html", action="store_true", help="a page to print, in place of Markdown")
    camera = leaf(draft, "camera-sign", "The notice before cameras, Japanese and English, with a QR; HTML for A4.", _camera_sign)
    camera.add_argument("--place", default="", help="where it will hang")
    camera.add_argument("--url", default="", help="what the QR opens; without: public_url")
    for one in (file_register, camera):
        one.add_argument("--out", type=Path, help="the file to write; without: it is printed")


def _report(config: GatewayConfig, _arguments: argparse.Namespace) -> Told:
    now_us, zone = clock_us(), ZoneInfo(config.time_zone)
    found: list[dict[str, Any]] = []
    with opened(config) as state, state.read() as connection:
        for kind in KINDS:
            one: dict[str, Any] = {"kind": kind.name, "what": kind.what, "keep_s": None, "why": kind.why}
            if kind.setting is not None:
                one["keep_s"] = getattr(config.keep, kind.setting)
            if kind.oldest is not None:
                table, column, where = kind.oldest
                query = select(func.count(), func.min(column)).select_from(table)
                rows, oldest_us = connection.execute(query if where is None else query.where(where)).one()
                one |= {"rows": rows, "oldest_us": oldest_us}
            since_us = now_us - SHOWN_US
            gone = select(func.coalesce(func.sum(removals.c.count), 0)).where(removals.c.kind == kind.name, removals.c.node == "")
            one["removed"] = connection.scalar(gone)
            one["removed_30d"] = connection.scalar(gone.where(removals.c.day_us >= since_us))
            found.append(one)
        too_late = late.dropped(connection, now_us - SHOWN_US)
    lines = [_line(one, zone) for one in found]
    for node, of in too_late.items():
        said = ", ".join(f"{number} of {kind}" for kind, number in of.items())
        lines.append(f"{node}: sent {said} past their time in the last 30 days; dropped")
    return Told(0, {"kinds": found, "too_late": too_late}, all_wrapped(lines))


def _line(one: dict[str, Any], zone: ZoneInfo) -> str:
    keeps = one["why"] if one["keep_s"] is None else f"{one['keep_s'] // 86_400} days"
    parts = [f"{one['kind']} ({one['what']}): {keeps}"]
    if one.get("rows"):
        parts.append(f"{one['rows']} here, the oldest of {day(one['oldest_us'], zone)}")
    if one["removed"]:
        parts.append(f"{one['removed']} forgotten, {one['removed_30d']} in 30 days")
    return "; ".join(parts)


def _erase(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    kind = arguments.what
    shown = tag_sha256(arguments.id)[:12] if kind == "tag" else arguments.id
    if not arguments.yes:
        raise ConfigError(f"this erases {kind} {arguments.id} for good, and that can't be undone: say --yes")
    with opened(config) as state:
        try:
            with erasing(state, kind, arguments.id) as connection:
                erased = ERASE[kind](connection, arguments.id, who(), clock_us())
        except NotErased as error:
            return Told(1, {"error": str(error)}, [])
        if arguments.rewrite:
            state.rewrite()
        emptied = state.empty_log()
    lines = [f"{kind} {shown}: erased, {erased.total} rows", *(f"stays: {one}" for one in erased.remains)]
    if state.is_shared and not arguments.rewrite:
        lines.append("PostgreSQL overwrites the old rows in its files when it needs the room: --rewrite destroys them now")
    if not emptied:
        lines.append("the database's log still holds it, because somebody reads just now: the gateway empties it within seconds")
    return Told(0, {"erased": shown, "rows": erased.rows, "remains": erased.remains, "log_emptied": emptied}, all_wrapped(lines))


def _file_register(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    return _written(arguments, register.html(config) if arguments.html else register.markdown(config))


def _camera_sign(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    return _written(arguments, sign(config, arguments.place, arguments.url))


def _written(arguments: argparse.Namespace, text: str) -> Told:
    if arguments.out is None:
        return Told(0, {"text": text}, [text.rstrip("\n")])
    try:
        with arguments.out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{arguments.out} is there already: give another name, or remove it") from error
    to_do = "; fill in what stands in 〔〕" if "〔" in text else ""
    return Told(0, {"file": str(arguments.out)}, [f"{arguments.out}: written{to_do}"])
