"""push: a message as one Web Push (RFC 8030), encrypted for the browser that subscribed (RFC 8291), ours by VAPID (8292).

The subscription is the address: JSON of `endpoint` and `keys`, as the browser gives it. It comes from outside, so its endpoint is
gone to by the guard only. The push service sees sizes and times, never a word. A repeated attempt has the same Topic and the
same tag, so that one message replaces itself where it was not shown yet, and rings once where it was; the service can't say so.
"""

import base64
import binascii
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gateway.errors import ConfigError
from gateway.notify.guard import Blocked, Guard
from gateway.notify.message import Message
from gateway.notify.outcome import Delivered, Gone, Outcome, Refused, Retry, Unknown
from gateway.secret_files import read_secret

KEY_FILE = "vapid.pem"
MOST_BYTES = 3993
"""Of a message before it is encrypted: services take 4096 after it (RFC 8030, 7.2), and aes128gcm adds 103."""
SHORT_BYTES = 1500
"""After a 413: some services take less."""
LONGEST_SUBSCRIPTION = 2000
TOKEN_US = 12 * 3_600_000_000  # at most 24 h (RFC 8292, 2)
TOKEN_LEFT_US = 3_600_000_000
MOST_TOKENS = 64

_REASON = 300
_URGENCY = {"critical": "high", "warning": "normal", "info": "low"}
_TTL_S = {"critical": 86_400, "warning": 43_200, "info": 14_400}
_TEST_TTL_S = 3 * 86_400  # a test waits for its answer for days

_TOO_LARGE = Refused("answered 413: the push service takes no message of this size")

_frozen = ConfigDict(extra="forbid", frozen=True)


class PushConfig(BaseModel):
    """`[channel.push]`: messages to browsers that subscribed on the gateway's pages."""

    model_config = _frozen

    contact: str = Field(description="Whom push services write to when something is wrong: mailto:office@example.jp")
    timeout_s: Annotated[float, Field(gt=0, le=60)] = Field(10, description="How long one attempt may take.")
    allow_loopback: bool = Field(False, description="Whether subscriptions may lead to this machine: for simulated phones.")

    @field_validator("contact")
    @classmethod
    def _is_somebody(cls, contact: str) -> str:
        if not contact.isascii() or not contact.isprintable() or " " in contact:
            raise ValueError(f"{contact!r} is neither mailto:name@host nor https://host/...")
        mail = contact.removeprefix("mailto:")
        if not (mail != contact and "." in mail.partition("@")[2]) and not contact.startswith("https://"):
            raise ValueError(f"{contact!r} is neither mailto:name@host nor https://host/...")
        return contact


class Keys(BaseModel):
    """The browser's: an uncompressed P-256 point and 16 bytes, each base64url."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    p256dh: Annotated[str, Field(min_length=80, max_length=100)]
    auth: Annotated[str, Field(min_length=20, max_length=32)]


class Subscription(BaseModel):
    """What `PushSubscription.toJSON()` gives. What else stands in it is left out."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    endpoint: Annotated[str, Field(min_length=10, max_length=1500)]
    keys: Keys

    def address(self) -> str:
        """As `addresses.address` holds it: the same text for the same subscription."""
        return json.dumps(self.model_dump(), separators=(",", ":"), sort_keys=True)


class BadSubscription(ValueError):
    """This is no subscription that a message can be encrypted for; the text says why."""


def read_subscription(text: str | bytes) -> Subscription:
    """A subscription from a phone, or from its row. BadSubscription for anything else."""
    if len(text) > LONGEST_SUBSCRIPTION:
        raise BadSubscription(f"it is longer than {LONGEST_SUBSCRIPTION} characters")
    try:
        found = Subscription.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise BadSubscription(f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}") from None
    check(found)
    return found


def check(subscription: Subscription) -> None:
    """BadSubscription where endpoint or keys can't be a browser's. Where the endpoint leads is the guard's to judge."""
    if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/[!-~]*", subscription.endpoint):
        raise BadSubscription("endpoint is not https://host/...")
    point, auth = _decoded(subscription.keys.p256dh), _decoded(subscription.keys.auth)
    if auth is None or len(auth) != 16:
        raise BadSubscription("keys.auth is not 16 bytes in base64url")
    try:
        if point is None or len(point) != 65:
            raise ValueError
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        raise BadSubscription("keys.p256dh is no uncompressed point of P-256 in base64url") from None


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None


class _Token(NamedTuple):
    headers: Mapping[str, str]
    until_us: int


class Vapid:
    """The key by which push services know this gateway. Subscriptions are made for it: with another one, all of them end."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, contact: str) -> None:
        from py_vapid import Vapid02

        self._signer, self._contact = Vapid02(key), contact
        point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        self.public_key: str = base64.urlsafe_b64encode(point).decode().rstrip("=")
        """What a page hands to `pushManager.subscribe` as applicationServerKey."""
        self._lock = threading.Lock()
        self._tokens: dict[str, _Token] = {}

    def headers(self, endpoint: str, now_us: int) -> Mapping[str, str]:
        """`Authorization` for this endpoint's service. One token serves for hours: services slow down who brings many."""
        parts = urlsplit(endpoint)
        audience = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            token = self._tokens.get(audience)
            if token is None or not now_us + TOKEN_LEFT_US < token.until_us <= now_us + TOKEN_US:
                until_us = now_us + TOKEN_US
                claims = {"aud": audience, "sub": self._contact, "exp": until_us // 1_000_000}
                token = _Token(dict(self._signer.sign(claims)), until_us)
                if len(self._tokens) >= MOST_TOKENS:
                    self._tokens.clear()  # audiences come from outside
                self._tokens[audience] = token
            return token.headers


def open_vapid(folder: Path, contact: str) -> Vapid:
    """The key in `folder`, which is made (0600) where there is none yet. ConfigError when it can't be used."""
    path = folder / KEY_FILE
    try:
        if not path.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make(path)
        pem = read_secret(path, "people.folder")
    except OSError as error:
        raise ConfigError(f"people.folder: {path} can't be read or made: {error.strerror}") from error
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"people.folder: {path} is no private key in PEM: restore it, or who subscribed must do so anew"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError(f"people.folder: {path} holds a key that is not EC P-256")
    return Vapid(key, contact)


def _make(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(descriptor)
    try:
        os.link(part, path)  # never over a key that came meanwhile
    except FileExistsError:
        pass  # another process was first: its key is the one
    part.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Push:
    """The channel `push`."""

    knows_repetition = False

    def __init__(self, config: PushConfig, vapid: Vapid, now_us: Callable[[], int]) -> None:
        """`now_us`: the clock of VAPID's tokens."""
        self._vapid, self._now_us = vapid, now_us
        self._client = Guard(allow_loopback=config.allow_loopback).client(config.timeout_s)

    def send(self, id_: str, to: str, message: Message) -> Outcome:
        """One attempt. 404 and 410: the subscription has ended. After 413 it is tried once more, shorter."""
        try:
            subscription = read_subscription(to)
        except BadSubscription as error:
            return Gone(f"this is no push subscription: {error}")
        outcome: Outcome = _TOO_LARGE
        for most_bytes in (MOST_BYTES, SHORT_BYTES):
            outcome = self._post(id_, subscription, message, payload(id_, message, most_bytes))
            if outcome is not _TOO_LARGE:
                break
        return outcome

    def _post(self, id_: str, subscription: Subscription, message: Message, data: bytes) -> Outcome:
        now_us = self._now_us()
        headers = {
            **self._vapid.headers(subscription.endpoint, now_us),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(_TEST_TTL_S if message.kind == "test" else _TTL_S[message.severity]),
            "Urgency": _URGENCY[message.severity],
            "Topic": topic(id_),
        }
        try:
            body = encrypted(subscription, data)
            with self._client.stream("POST", subscription.endpoint, content=body, headers=headers) as response:
                return _outcome(response, now_us)
        except Blocked as error:
            return Refused(f"the subscription's endpoint: {error}"[:_REASON])
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            return Retry(f"{type(error).__name__}: {error}"[:_REASON])
        except httpx.HTTPError as error:
            return Unknown(f"{type(error).__name__}: {error}"[:_REASON])
        except OSError as error:  # its host has no address now
            return Retry(f"{type(error).__name__}: {error}"[:_REASON])

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()


def _outcome(response: httpx.Response, now_us: int) -> Outcome:
    status = response.status_code
    if status in (200, 201, 202):
        return Delivered(response.headers.get("location", "")[:500] or None)
    if status in (404, 410):
        return Gone(f"answered {status}: the subscription has ended")
    if status == 413:
        return _TOO_LARGE
    if status == 429 or status >= 500:
        return Retry(f"answered {status}", retry_after_s(response.headers.get("retry-after", ""), now_us))
    if status in (401, 403):
        return Retry(f"answered {status}: check people.folder/{KEY_FILE} and this machine's clock")
    return Refused(f"answered {status}")


def retry_after_s(text: str, now_us: int) -> float | None:
    """Of a Retry-After header, seconds or a date; at most an hour. None where it says nothing that can be read."""
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), 3600)
    try:
        after_s = parsedate_to_datetime(text).timestamp() - now_us / 1e6
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(after_s, 0), 3600)


def encrypted(subscription: Subscription, data: bytes) -> bytes:
    """For this browser's eyes only: one record of aes128gcm."""
    from pywebpush import WebPusher

    body: bytes = WebPusher(subscription.model_dump()).encode(data, "aes128gcm")["body"]
    return body


def topic(id_: str) -> str:
    """32 characters of base64url, the same for the same message for ever: the service keeps only the last of a topic."""
    return base64.urlsafe_b64encode(hashlib.sha256(id_.encode()).digest()[:24]).decode()


def payload(id_: str, message: Message, most_bytes: int = MOST_BYTES) -> bytes:
    """What the page's service worker shows, as JSON of at most so many bytes: first links go, then the end of the text.

    `tag` is the notification's: a browser shows one of a tag and replaces it in silence.
    """
    shown: dict[str, Any] = {
        "id": id_,
        "tag": id_,
        "kind": message.kind,
        "severity": message.severity,
        "language": message.language,
        "title": message.title,
        "body": message.body,
        "buttons": [button.model_dump() for button in message.buttons],
        "links": [link.model_dump() for link in message.links],
        "answer_url": message.answer_url,
        "late": message.late,
        "over": message.over,
    }
    if len(_json(shown)) > most_bytes:
        shown["links"] = []
    for field in ("body", "title"):
        if (surplus := len(_json(shown)) - most_bytes) > 0:
            shown[field] = _shortened(shown[field], surplus)
    return _json(shown)


def _json(shown: Mapping[str, Any]) -> bytes:
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _shortened(text: str, surplus: int) -> str:
    """Without its end, so that its JSON is at least `surplus` bytes shorter, or nothing is left but the mark of it."""
    for length in range(len(text) - 1, -1, -1):
        surplus -= len(json.dumps(text[length], ensure_ascii=False).encode(errors="replace")) - 2
        if surplus + len("…".encode()) <= 0:
            return text[:length] + "…"
    return "…"
