"""`[channel]`: over what people are told, and the channels that are made of it. The one place that knows all of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from gateway.contacts.address import AddressChannel
from gateway.contacts.config import PeopleConfig
from gateway.errors import ConfigError
from gateway.notify import Channel, ContactConfig, build_channel
from gateway.notify.line import Line, LineConfig
from gateway.notify.mail import Mail, MailConfig
from gateway.notify.push import Push, PushConfig, Vapid, open_vapid
from gateway.notify.quota import Quota
from gateway.notify.twilio import Account, Sms, TwilioConfig, Voice


class ChannelsConfig(BaseModel):
    """`[channel]`: each absent one is not used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    line: LineConfig | None = Field(None, description="LINE; absent: none.")
    push: PushConfig | None = Field(None, description="Web Push; absent: none.")
    mail: MailConfig | None = Field(None, description="Mail; absent: none.")
    twilio: TwilioConfig | None = Field(None, description="Short messages and calls; absent: none.")

    @property
    def any(self) -> bool:
        """Whether people can be told over anything but the webhooks of the configuration."""
        return any(getattr(self, name) is not None for name in type(self).model_fields)

    @property
    def typed(self) -> tuple[AddressChannel, ...]:
        """Over what somebody can be told whose address was typed: mail, sms, voice, as far as they are configured."""
        return (*(("mail",) if self.mail else ()), *(("sms", "voice") if self.twilio else ()))


class Channels(NamedTuple):
    """What is told over, and what others need of it."""

    by_key: Mapping[str, Channel]
    """As `Deliverer` wants them: line, push, mail, sms, voice, and `contact.<name>`."""
    line: Line | None = None
    vapid: Vapid | None = None


def build_channels(
    config: ChannelsConfig,
    contacts: Mapping[str, ContactConfig],
    people: PeopleConfig | None,
    now_us: Callable[[], int],
    quota: Callable[[LineConfig], Quota],
) -> Channels:
    """All channels of the configuration. ConfigError when a key or password can't be read, or `[people]` is missing.

    `quota` makes what the LINE account may still send.
    """
    built: dict[str, Channel] = {f"contact.{name}": build_channel(name, one, now_us) for name, one in contacts.items()}
    if not config.any:
        return Channels(built)
    if people is None:
        raise ConfigError("channel: needs [people], which says how phones reach this gateway and where its keys are")
    line, vapid = None, None
    if config.line is not None:
        line = built["line"] = Line(config.line, quota(config.line), now_us)
    if config.push is not None:
        vapid = open_vapid(Path(people.folder), config.push.contact)
        built["push"] = Push(config.push, vapid, now_us)
    if config.mail is not None:
        built["mail"] = Mail(config.mail, now_us)
    if config.twilio is not None:
        account = Account(config.twilio, people.public_url)
        built["sms"], built["voice"] = Sms(account), Voice(account, people.town)
    return Channels(built, line, vapid)
