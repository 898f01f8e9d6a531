"""The kinds of channel: one module each, listed here and nowhere else.

A channel module holds one pydantic config (`type: Literal[...]`) and one class:

    class Webhook:
        def __init__(self, contact: str, config: WebhookConfig) -> None: ...
        def send(self, id: str, body: str) -> Outcome: ...       # may be called from several threads; never raises
        def close(self) -> None: ...

`deliver` calls it from the durable outbox (the `notifications` table). `id` is the same at every attempt.
"""

from typing import Protocol

from gateway.notify.outcome import Delivered, Outcome, Refused, Retry
from gateway.notify.webhook import Webhook, WebhookConfig

CHANNELS = ((WebhookConfig, Webhook),)

ContactConfig = WebhookConfig
"""The union of the configs above, told apart by `type`."""


class Channel(Protocol):
    """What every channel is."""

    def send(self, id_: str, body: str) -> Outcome:
        """One attempt. Every failure is an outcome."""
        ...

    def close(self) -> None:
        """Gives back connections."""
        ...


def build_channel(contact: str, config: ContactConfig) -> Channel:
    """The channel that a contact's config describes."""
    return next(channel(contact, config) for kind, channel in CHANNELS if type(config) is kind)


__all__ = ["CHANNELS", "Channel", "ContactConfig", "Delivered", "Outcome", "Refused", "Retry", "build_channel"]
