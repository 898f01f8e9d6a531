"""webhook: a notification as one HTTP POST of JSON.

The notification's id goes as `Idempotency-Key`, so that a receiver can tell a repetition; 409 says that it had it already.
Few answers are final: a 404 or a 401 may come of a proxy that restarts or a token that is being replaced. With a secret, each
POST is signed, so that a receiver knows whose word it is; gateway/README.md says how it checks that.
"""

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, HttpUrl

from gateway.errors import ConfigError
from gateway.notify.guard import Blocked, Guard
from gateway.notify.message import Message
from gateway.notify.outcome import Delivered, Outcome, Refused, Retry
from gateway.secret_files import read_secret

SIGNATURE = "x-satomori-signature"
SHORTEST_SECRET = 16
_BUSY = frozenset((408, 425, 429))  # nothing is wrong, it is only not now
_FINAL = frozenset((410, 413, 422))  # said of this receiver or this very message
_REASON = 300


class WebhookConfig(BaseModel):
    """`type = "webhook"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["webhook"] = Field(description="One HTTP POST of JSON a notification.")
    url: Annotated[HttpUrl, Field(description="Where the POST goes: https://..., or this machine (127.0.0.1, localhost).")]
    timeout_s: Annotated[float, Field(gt=0, le=60, description="How long one attempt may take.")] = 10
    secret_file: Path | None = Field(None, description="File with the secret that POSTs are signed with; absent: unsigned.")
    allow_http: bool = Field(False, description="Whether it may be http beyond this machine: anybody on the way can read it.")
    allow_private: bool = Field(False, description="Whether it may be in a private network (192.168..., 10...).")


class Webhook:
    """One receiver."""

    knows_repetition = True

    def __init__(self, contact: str, config: WebhookConfig, now_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        """`now_us`: the clock of signatures. ConfigError when the secret can't be read."""
        self._contact, self._url, self._now_us = contact, str(config.url), now_us
        self._secret = _secret(contact, config.secret_file) if config.secret_file else None
        guard = Guard(allow_http=config.allow_http, allow_private=config.allow_private, allow_loopback=True)
        self._client = guard.client(config.timeout_s)

    def send(self, id_: str, _to: str, message: Message) -> Outcome:
        """One POST. 2xx and 409 are delivered; 410, 413 and 422 are refused for good; anything else is tried again."""
        body = json.dumps(message.for_machines(), ensure_ascii=False).encode()
        headers = {"content-type": "application/json", "idempotency-key": id_}
        if self._secret is not None:
            headers[SIGNATURE] = signature(self._secret, body, self._now_us() // 1_000_000)
        try:
            with self._client.stream("POST", self._url, content=body, headers=headers) as response:
                status, after = response.status_code, response.headers.get("retry-after", "")
        except Blocked as error:
            # Not for good: a router whose line is down may answer every name with itself.
            return Retry(f"contact.{self._contact}.url: {error}"[:_REASON])
        except (httpx.HTTPError, OSError) as error:
            return Retry(f"{type(error).__name__}: {error}"[:_REASON])
        if response.is_success or status == httpx.codes.CONFLICT:
            return Delivered()
        is_theirs = status >= httpx.codes.INTERNAL_SERVER_ERROR or status in _BUSY
        reason = f"answered {status}" if is_theirs else f"answered {status}: check contact.{self._contact}.url"
        if status in _FINAL:
            return Refused(reason)
        return Retry(reason, min(float(after), 3600) if after.isascii() and after.isdigit() else None)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()


def signature(secret: bytes, body: bytes, at_s: int) -> str:
    """`t=<unix s>,v1=<hex HMAC-SHA256 of "t.body">`: who knows the secret said this body, then."""
    return f"t={at_s},v1={hmac.new(secret, b'%d.' % at_s + body, hashlib.sha256).hexdigest()}"


def _secret(contact: str, path: Path) -> bytes:
    setting = f"contact.{contact}.secret_file"
    secret = read_secret(path, setting).strip()
    if len(secret) < SHORTEST_SECRET:
        raise ConfigError(f"{setting}: {path} holds less than {SHORTEST_SECRET} characters")
    return secret
