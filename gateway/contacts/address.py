"""What people type as an address, made what a channel needs, or refused in words. Pure."""

import json
import re
import unicodedata
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from gateway.words.refusal import Refusal

AddressChannel = Literal["line", "push", "mail", "sms", "voice"]
"""The channels that a person has an address of."""

CHANNELS: tuple[AddressChannel, ...] = get_args(AddressChannel)
LONGEST_NAME = 40

_line = re.compile(r"U[0-9a-f]{32}")
_mail = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?=.{1,255}$)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")
_number = re.compile(r"\+[1-9][0-9]{6,14}")
_between_digits = re.compile(r"[\s().\-\u2010-\u2015\u2212\u30fc]+")  # with all that Japanese keyboards make of a hyphen
MOST_BYTES = 3000


class WrongAddress(Refusal):
    """This leads nowhere over this channel. What was typed is never repeated."""


def clean_address(channel: AddressChannel, text: str, calling_code: str) -> str:
    """The address as it is stored: a telephone number as +81..., a mail address without what surrounds it.

    `calling_code`: the country of numbers that begin with 0. WrongAddress for what can't be one.
    """
    if len(text) > MOST_BYTES:
        raise WrongAddress("why.address_long", n=MOST_BYTES)
    if channel == "push":
        return _subscription(text)
    text = unicodedata.normalize("NFKC", text).strip()
    if channel == "line":
        return _matching(_line, text, "why.address_line")
    if channel == "mail":
        return _matching(_mail, text, "why.address_mail")
    number = _between_digits.sub("", text)
    if number.startswith("0") and not number.startswith("00"):
        number = f"+{calling_code}{number[1:]}"
    return _matching(_number, number, "why.address_number")


def _matching(pattern: re.Pattern[str], text: str, wrong: str) -> str:
    if not pattern.fullmatch(text):
        raise WrongAddress(wrong)
    return text


def _subscription(text: str) -> str:
    """As a browser gives it, in one spelling: an https endpoint and two keys."""
    try:
        said: Any = json.loads(text)
        endpoint, keys = said["endpoint"], said["keys"]
        kept = {"endpoint": endpoint, "keys": {name: keys[name] for name in ("auth", "p256dh")}}
        parts = urlsplit(endpoint)
        sound = parts.scheme == "https" and parts.hostname and "@" not in parts.netloc
        if not sound or not all(isinstance(key, str) for key in kept["keys"].values()):
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError):
        raise WrongAddress("why.address_push") from None
    return json.dumps(kept, separators=(",", ":"), sort_keys=True)


def clean_name(text: str) -> str | None:
    """A name as it is stored: one line, without what can't be seen; None where nothing is left of it or it is too long."""
    text = unicodedata.normalize("NFC", text)
    shown = "".join(" " if character.isspace() else character for character in text if _is_shown(character))
    name = " ".join(shown.split())
    return name if 1 <= len(name) <= LONGEST_NAME else None


def _is_shown(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn")
