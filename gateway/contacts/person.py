"""The shapes of somebody to be told: Person, Address. Data only."""

from typing import NamedTuple

from gateway.alerting.route import Channel
from gateway.notify.message import Language


class Address(NamedTuple):
    """One way to reach a person."""

    id: str | None
    """Of the `addresses` table; None for a `contact` of the configuration, which has one of its own."""
    channel: Channel
    to: str
    """A LINE user id, a push subscription as JSON, a mail address, a telephone number as +81...; empty where `id` is None."""


class Person(NamedTuple):
    """Somebody who can be told now."""

    contact: str
    """`contacts.id`, or the name of a `contact` of the configuration."""
    name: str
    language: Language
    addresses: tuple[Address, ...]
    """Those that can be used, in the order in which they are tried. Never empty."""
    quiet_until_us: int | None = None
    """Their quiet hours last until then; None: it is none now."""
    stands_in_for: str | None = None
    """The contact who said 留守にします."""
