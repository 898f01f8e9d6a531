"""The dead-man outside: says to a watcher elsewhere that the gateway is well, for as long as it is. Its silence is the alarm.

Any heartbeat monitor will do that expects a GET now and then and raises its own alarm when none comes. Nothing is said to `url`
by a gateway that is not well; who gives a `fail_url` is told so at once, and need not wait for the silence.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Annotated

import httpx
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, field_validator
from sqlalchemy.exc import OperationalError

from gateway.notify.guard import Blocked, Guard
from gateway.rules.duration import Duration
from gateway.state import State
from gateway.state.tables import cursors
from gateway.state.upsert import upsert

log = logging.getLogger(__name__)

WROTE = "heartbeat_us"


class HeartbeatConfig(BaseModel):
    """`[heartbeat]`: an outside watcher that notices when the gateway itself is dead."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: HttpUrl = Field(description="GET while the gateway is well: the https address a heartbeat monitor gave you.")
    fail_url: HttpUrl | None = Field(None, description="GET while it is not; absent: nothing is said then.")
    every: Annotated[Duration, Field(ge=10)] = Field(60, description="How often.")
    timeout_s: Annotated[float, Field(gt=0, le=30)] = Field(10, description="How long one may take.")
    allow_private: bool = Field(False, description="Whether the watcher may be in a private network (192.168..., 10...).")

    @field_validator("url", "fail_url")
    @classmethod
    def _is_secret_on_its_way(cls, url: HttpUrl | None) -> HttpUrl | None:
        """Who reads the address on the wire can say in the gateway's place that it is well."""
        if url is not None and url.scheme != "https" and url.host not in ("127.0.0.1", "localhost", "[::1]"):
            raise ValueError(f"http to {url.host} is open to be read; write https:// (http is for a watcher on this machine)")
        return url


class Heartbeat:
    """`run` is a chore."""

    def __init__(self, state: State, config: HeartbeatConfig, well: Callable[[], Mapping[str, bool]]) -> None:
        """`well()`: each part without which nobody would be told of an alarm, and whether it works."""
        self._state, self._well = state, well
        self._url, self._fail_url = str(config.url), str(config.fail_url) if config.fail_url else None
        self._client = Guard(allow_private=config.allow_private, allow_loopback=True).client(config.timeout_s)
        self._said_ill = self._said_deaf = False

    def run(self, now_us: int) -> None:
        """One beat."""
        ill = sorted(part for part, works in self._well().items() if not works)
        if (fault := self._write(now_us)) is not None:
            ill.append(fault)
        if ill and not self._said_ill:
            log.error("the outside watcher is not told that the gateway is well: %s", ", ".join(ill))
        elif not ill and self._said_ill:
            log.warning("the outside watcher is told again that the gateway is well")
        self._said_ill = bool(ill)
        if not ill:
            self._get(self._url)
        elif self._fail_url is not None:
            self._get(self._fail_url)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _write(self, now_us: int) -> str | None:
        """Why the state database can't be written; None when it can: who only reads would look alive on a full disk."""
        try:
            with self._state.write() as connection:
                connection.execute(upsert(cursors, "value"), {"name": WROTE, "value": now_us})
        except OperationalError as error:
            return f"state ({error.orig})"
        return None

    def _get(self, url: str) -> None:
        """Nothing that goes wrong here may stop the other chores; the watcher notices by itself. The URL is a secret."""
        try:
            with self._client.stream("GET", url) as response:
                fault = None if response.is_success else f"it answered {response.status_code}"
        except Blocked as error:
            fault = str(error)
        except (httpx.HTTPError, OSError) as error:
            fault = type(error).__name__
        if fault is not None and not self._said_deaf:
            log.error("the outside watcher can't be told that the gateway is alive: %s; trying again", fault)
        elif fault is None and self._said_deaf:
            log.warning("the outside watcher can be told again")
        self._said_deaf = fault is not None
