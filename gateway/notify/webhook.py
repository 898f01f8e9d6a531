"""webhook: a notification as one HTTP POST of JSON.

The notification's id goes as `Idempotency-Key`, so that a receiver can tell a repetition; 409 says that it had it already.
Few answers are final: a 404 or a 401 may come of a proxy that restarts or a token that is being replaced.
"""

from typing import Annotated, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, HttpUrl

from gateway.notify.outcome import Delivered, Outcome, Refused, Retry

_BUSY = frozenset((408, 425, 429))  # nothing is wrong, it is only not now
_FINAL = frozenset((410, 413, 422))  # said of this receiver or this very message
_REASON = 300


class WebhookConfig(BaseModel):
    """`type = "webhook"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["webhook"] = Field(description="One HTTP POST of JSON a notification.")
    url: Annotated[HttpUrl, Field(description="Where the POST goes.")]
    timeout_s: Annotated[float, Field(gt=0, le=60, description="How long one attempt may take.")] = 10


class Webhook:
    """One receiver."""

    def __init__(self, contact: str, config: WebhookConfig) -> None:
        self._contact, self._url = contact, str(config.url)
        self._client = httpx.Client(timeout=config.timeout_s, follow_redirects=False, trust_env=False)

    def send(self, id_: str, body: str) -> Outcome:
        """One POST. 2xx and 409 are delivered; 410, 413 and 422 are refused for good; anything else is tried again."""
        headers = {"content-type": "application/json", "idempotency-key": id_}
        try:
            with self._client.stream("POST", self._url, content=body.encode(), headers=headers) as response:
                status, after = response.status_code, response.headers.get("retry-after", "")
        except httpx.HTTPError as error:
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
