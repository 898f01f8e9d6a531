"""The kinds of channel, and how a `contact` of the configuration becomes one.

A channel is one class:

    class Webhook:
        knows_repetition = True
        def send(self, id_: str, to: str, message: Message) -> Outcome: ...   # called from several threads; never raises
        def close(self) -> None: ...

`deliver` calls it from the durable outbox (the `notifications` table). `id_` is the same at every attempt. What people have
addresses of (line, push, mail, sms, voice) is made in `channels`; a `contact` of the configuration is a channel of its own.
"""

import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from gateway.notify.message import Message
from gateway.notify.outcome import Delivered, Gone, NoQuota, Outcome, Refused, Retry, Unknown
from gateway.notify.webhook import Webhook, WebhookConfig

CHANNELS = ((WebhookConfig, Webhook),)

ContactConfig = WebhookConfig
"""The union of the configs above, told apart by `type`."""


class Channel(Protocol):
    """What every channel is."""

    @property
    def knows_repetition(self) -> bool:
        """Whether the other side tells a repeated `id_` from another message (by a key). A class attribute does.

        Where it can't, an attempt is written down before it is made, and one whose end is not known is never simply repeated.
        """
        ...

    def send(self, id_: str, to: str, message: Message) -> Outcome:
        """One attempt, to this address (empty for a `contact` of the configuration). Every failure is an outcome."""
        ...

    def close(self) -> None:
        """Gives back connections."""
        ...


@runtime_checkable
class Finder(Protocol):
    """What a channel also is whose provider can be asked what it was given."""

    def find(self, id_: str, to: str, message: Message, intent_us: int, taken: Callable[[str], bool]) -> Delivered | None:
        """Whether an attempt begun at `intent_us` did get there. Raises when the provider can't be asked now.

        `taken(provider id)`: whether that is known as another notification's. Two may say the same to the same person.
        """
        ...


def build_channel(contact: str, config: ContactConfig, now_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> Channel:
    """The channel of `contact.<contact>`. ConfigError when a file it names can't be read."""
    return next(channel(contact, config, now_us) for kind, channel in CHANNELS if type(config) is kind)


__all__ = [
    "CHANNELS",
    "Channel",
    "ContactConfig",
    "Delivered",
    "Finder",
    "Gone",
    "NoQuota",
    "Outcome",
    "Refused",
    "Retry",
    "Unknown",
    "build_channel",
]
