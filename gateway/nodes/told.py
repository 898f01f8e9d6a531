"""What commands of `satomori-gateway` tell, and how they say times and places. Nothing here decides anything."""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from gateway.config import GatewayConfig
from gateway.state import State, open_state


class Told(NamedTuple):
    """What a command found out or did."""

    code: int
    """The exit code: 0 or 1."""
    body: dict[str, Any]
    """For programs; `ok` is added. With code 1 it has an `error`."""
    lines: list[str]
    """For people."""


@contextmanager
def opened(config: GatewayConfig) -> Iterator[State]:
    """The state database while the block runs."""
    state = open_state(config.state.url)
    state.erasures_file = config.keep.erasures_file
    try:
        yield state
    finally:
        state.close()


def media_path(sha256: str) -> str:
    """Where the API gives out a file that a node sent."""
    return f"/api/v1/media/{sha256}"


def day(us: int, zone: ZoneInfo) -> str:
    """A day as it is printed."""
    return dt.datetime.fromtimestamp(us / 1e6, zone).strftime("%Y-%m-%d")


def minute(us: int, zone: ZoneInfo) -> str:
    """A time as it is printed, to the minute."""
    return dt.datetime.fromtimestamp(us / 1e6, zone).strftime("%Y-%m-%d %H:%M %Z")
