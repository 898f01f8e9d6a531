"""What an officer's desk has: the rooms of contacts together, for the API, the page and the command line."""

from collections.abc import Callable
from typing import NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from gateway.contacts import people
from gateway.contacts.address import AddressChannel, WrongAddress, clean_address
from gateway.contacts.book import Book
from gateway.contacts.join import Joining
from gateway.contacts.proof import Proof


class Desk(NamedTuple):
    """Made once, by the wiring."""

    book: Book
    proof: Proof
    joining: Joining
    zone: ZoneInfo
    offers: tuple[AddressChannel, ...] = ("mail", "sms", "voice")
    """The channels of which somebody may type an address: those that this gateway has."""
    friend_url: str | None = None
    """Where the town's LINE account is added as a friend."""
    push_url: Callable[[str, int], str] | None = None
    """push_url(contact, now_us): the page where this contact subscribes a browser; None without `[channel.push]`."""
    phone: str | None = None
    """The office's telephone."""

    def add_address(self, connection: Connection, contact: str, channel: AddressChannel, to: str, now_us: int) -> str:
        """An address that an officer enters, and a test to it after quiet hours; its id. NotDone for what can't be."""
        people.require(connection, contact)
        if channel not in self.offers:
            section = "channel.mail" if channel == "mail" else "channel.twilio"
            raise people.NotDone("wrong", "why.no_channel", section=section, channel=channel)
        try:
            clean = clean_address(channel, to, self.joining.calling_code)
        except WrongAddress as error:
            raise people.NotDone("wrong", error.id, **error.facts) from None
        id_ = people.add_address(connection, contact, channel, clean, now_us)
        if people.state_of(connection, id_) != "proved":
            self.proof.test(connection, id_, now_us, wait=True)
        return id_
