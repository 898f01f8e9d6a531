"""What all commands of `satomori-gateway` share: options, what one tells, how that looks in 80 columns. Decides nothing."""

import argparse
import datetime as dt
import getpass
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from gateway.rules.duration import parse_duration
from gateway.state import State, open_state

WIDTH = 80
"""Columns of a terminal; a full-width character takes two."""
HANG = "    "
"""What further lines of one thing begin with."""

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class Told(NamedTuple):
    """What a command found out or did."""

    code: int
    """The exit code: 0 or 1."""
    body: dict[str, Any]
    """For programs; `ok` is added. What failed has an `error`."""
    lines: list[str]
    """For people."""


Act = Callable[[GatewayConfig, argparse.Namespace], Told]


def branch(commands: Commands, name: str, text: str) -> Commands:
    """Adds a command that has commands of its own, and gives back where those are added. Which it is, is `arguments.what`."""
    return commands.add_parser(name, help=text, description=text).add_subparsers(dest="what", required=True)


def leaf(commands: Commands, name: str, text: str, act: Act | None = None) -> argparse.ArgumentParser:
    """Adds a command with what each has. What it does is in `arguments.act`."""
    command = commands.add_parser(name, help=text, description=text)
    command.add_argument("config", type=Path, help="gateway.toml")
    command.add_argument("--json", action="store_true", help="One JSON object on stdout, for programs.")
    command.set_defaults(act=act)
    return command


def whole(least: int, most: int, of: str = "") -> Callable[[str], int]:
    """Reads a whole number in these bounds; argparse says what is wrong. `of`: of what, as ` of hours`."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not least <= int(text[:19]) <= most:
            raise argparse.ArgumentTypeError(f"{text[:20]!r} is no whole number{of} from {least} to {most}")
        return int(text)

    return read


def duration_us(text: str) -> int:
    """What `--for` says, as 90m, 12h or 3d, in µs. ConfigError where that is no duration."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"--for: {error}") from error
    assert isinstance(seconds, int)  # noqa: S101 - of a text it is
    return seconds * 1_000_000


@contextmanager
def opened(config: GatewayConfig) -> Iterator[State]:
    """The state database while the block runs."""
    state = open_state(config.state.url, config.state.password_file)
    state.erasures_file = config.keep.erasures_file
    try:
        yield state
    finally:
        state.close()


def who() -> str:
    """Who sits at the command line, for the record."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):  # a user id without a name
        return "cli"


def clock_us() -> int:
    """Now, in UTC µs: a command reads the clock once, and hands it on."""
    return time.time_ns() // 1000


# --- What is printed --------------------------------------------------------------------------------


def wrapped(line: str, hang: str = HANG) -> list[str]:
    """The line in lines of `WIDTH` columns, broken at spaces and between full-width characters; a longer word stays whole.

    Not for what is copied: a link, a line to type, a table for programs.
    """
    lines, start, pause, width = [], 0, 0, 0
    lead = ""
    for at, character in enumerate(line):
        wide = _columns(character) == 2
        if at > start and (wide or (character != " " and line[at - 1] == " ")) and line[start:at].strip():
            pause = at
        width += _columns(character)
        if width > WIDTH and character != " " and pause > start:
            lines.append(lead + line[start:pause].rstrip())
            start, lead = pause, hang
            width = len(hang) + sum(map(_columns, line[start : at + 1]))
    return [*lines, lead + line[start:].rstrip()]


def all_wrapped(lines: Iterable[str]) -> list[str]:
    """Each of them, wrapped."""
    return [part for line in lines for part in wrapped(line)]


def cut(line: str) -> str:
    """The line to `WIDTH` columns. What moves a cursor is shown, and moves none."""
    line = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)
    width = 0
    for at, character in enumerate(line):
        width += _columns(character)
        if width > WIDTH:
            return line[: at - 1] + "…"
    return line


def _columns(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def media_path(sha256: str) -> str:
    """Where the API gives out a file that a node sent."""
    return f"/api/v1/media/{sha256}"


def day(us: int, zone: ZoneInfo) -> str:
    """A day as it is printed."""
    return dt.datetime.fromtimestamp(us / 1e6, zone).strftime("%Y-%m-%d")


def minute(us: int, zone: ZoneInfo) -> str:
    """A time as it is printed, to the minute."""
    return dt.datetime.fromtimestamp(us / 1e6, zone).strftime("%Y-%m-%d %H:%M %Z")
