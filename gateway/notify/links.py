"""Links that work without a login: what they are for, until when, and how they are recognized as ours. Nothing of what they open.

A link's token holds an id, when it ends, and a MAC over both and the link's purpose: one made for one purpose opens nothing else.
Who has the link is believed to be who got it, so it ends soon; nothing can be guessed or counted through.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from gateway.errors import ConfigError
from gateway.secret_files import read_secret

KEY_FILE = "link.key"
_KEY_BYTES, _MAC_BYTES = 32, 12
_expiry = struct.Struct(">I")  # seconds since 1970, until 2106
_contact = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Expired:
    """Once a link of ours; it ended at `at_us`."""

    at_us: int


@dataclass(frozen=True, slots=True)
class Forged:
    """No link of ours for this purpose, or only a part of one."""


class Links:
    """Makes and reads them. `public_url` is `https://host` without a slash at its end."""

    def __init__(self, public_url: str, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise ValueError(f"a link key has {_KEY_BYTES} bytes, not {len(key)}")
        self._url, self._key = public_url.rstrip("/"), key

    def answer_url(self, notification: str, expires_us: int) -> str:
        """Where this message can be answered: `/a/` and 43 characters. ValueError where its id is no UUID."""
        return f"{self._url}/a/{self._token(b'answer', UUID(notification).bytes, expires_us)}"

    def read(self, token: str, now_us: int) -> str | Expired | Forged:
        """The notification's id that stands in the token of an `answer_url`."""
        found = self._read(b"answer", token, 16, now_us)
        return str(UUID(bytes=found)) if isinstance(found, bytes) else found

    def contact_token(self, contact: str, expires_us: int) -> str:
        """What lets this contact (16 hex digits) subscribe a browser to push messages."""
        if not _contact.fullmatch(contact):
            raise ValueError(f"{contact!r} is no contact's id")
        return self._token(b"contact", bytes.fromhex(contact), expires_us)

    def push_url(self, contact: str, expires_us: int) -> str:
        """The page where this contact subscribes a browser."""
        return f"{self._url}/push/{self.contact_token(contact, expires_us)}"

    def read_contact(self, token: str, now_us: int) -> str | Expired | Forged:
        """The contact of a `contact_token`."""
        found = self._read(b"contact", token, 8, now_us)
        return found.hex() if isinstance(found, bytes) else found

    def family_url(self, watched: str, contact: str, expires_us: int) -> str:
        """The page of somebody who is watched over (16 hex digits), for this contact of their family."""
        return f"{self._url}/m/{self._token(b'family', _both(watched, contact), expires_us)}"

    def read_family(self, token: str, now_us: int) -> tuple[str, str] | Expired | Forged:
        """The watched person and the contact of a `family_url`."""
        found = self._read(b"family", token, 16, now_us)
        return (found[:8].hex(), found[8:].hex()) if isinstance(found, bytes) else found

    def consent_url(self, watched: str, contact: str, expires_us: int) -> str:
        """The page where this contact says whether the watch over somebody (16 hex digits) goes on."""
        return f"{self._url}/c/{self._token(b'consent', _both(watched, contact), expires_us)}"

    def read_consent(self, token: str, now_us: int) -> tuple[str, str] | Expired | Forged:
        """The watched person and the contact of a `consent_url`."""
        found = self._read(b"consent", token, 16, now_us)
        return (found[:8].hex(), found[8:].hex()) if isinstance(found, bytes) else found

    def label_url(self, shown: str) -> str:
        """The page about a tag's label, for who finds it. It opens nothing that is not on the tag."""
        return f"{self._url}/f/{shown}"

    def search_url(self, case: str, contact: str, expires_us: int) -> str:
        """The page of a search case (a UUID), for this contact who was asked to help."""
        if not _contact.fullmatch(contact):
            raise ValueError(f"{contact!r} is no contact's id")
        return f"{self._url}/s/{self._token(b'search', UUID(case).bytes + bytes.fromhex(contact), expires_us)}"

    def read_search(self, token: str, now_us: int) -> tuple[str, str] | Expired | Forged:
        """The case and the contact of a `search_url`."""
        found = self._read(b"search", token, 24, now_us)
        return (str(UUID(bytes=found[:16])), found[16:].hex()) if isinstance(found, bytes) else found

    def visit_url(self, node: str, device: str, printed: int = 1) -> str:
        """What a QR code at a device opens. It names no person and shows nothing. It ends when another is `printed` instead."""
        return f"{self._url}/v/{node}/{device}/{_text(self._visit(node, device, printed))}"

    def is_visit(self, node: str, device: str, token: str, printed: int = 1) -> bool:
        """Whether the token is that of this device's `visit_url`, as it was printed last."""
        return hmac.compare_digest(_bytes(token), self._visit(node, device, printed))

    def _visit(self, node: str, device: str, printed: int) -> bytes:
        return self._mac(b"visit", f"{node}/{device}/{printed}".encode())  # names have no slash

    def _token(self, purpose: bytes, id_: bytes, expires_us: int) -> str:
        payload = id_ + _expiry.pack(expires_us // 1_000_000)
        return _text(payload + self._mac(purpose, payload))

    def _read(self, purpose: bytes, token: str, id_bytes: int, now_us: int) -> bytes | Expired | Forged:
        whole = _bytes(token)
        payload, mac = whole[:-_MAC_BYTES], whole[-_MAC_BYTES:]
        if len(payload) != id_bytes + _expiry.size or not hmac.compare_digest(mac, self._mac(purpose, payload)):
            return Forged()
        expires_us = _expiry.unpack(payload[id_bytes:])[0] * 1_000_000
        return Expired(expires_us) if now_us >= expires_us else payload[:id_bytes]

    def _mac(self, purpose: bytes, payload: bytes) -> bytes:
        return hmac.new(self._key, purpose + b"\0" + payload, hashlib.sha256).digest()[:_MAC_BYTES]


def _both(watched: str, contact: str) -> bytes:
    if not _contact.fullmatch(watched) or not _contact.fullmatch(contact):
        raise ValueError(f"{watched!r}, {contact!r}: each id has 16 hex digits")
    return bytes.fromhex(watched + contact)


def open_link_key(folder: Path) -> bytes:
    """The key of `folder`, made at first use with mode 0600. ConfigError when it can't be had."""
    path = folder / KEY_FILE
    try:
        if not path.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make(path)
        key = read_secret(path, "people.folder")
    except OSError as error:
        raise ConfigError(f"people.folder: {path} can't be read or made: {error.strerror or error}") from error
    if len(key) != _KEY_BYTES:
        raise ConfigError(
            f"people.folder: {path} has {len(key)} bytes, not {_KEY_BYTES}. "
            "Restore it, or delete it: then links already sent and visit codes already printed end."
        )
    return key


def _make(path: Path) -> None:
    """Written whole under another name first: a crash leaves no key or a good one, and who comes second takes the first's."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            pass  # another process made it in between
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(token: str) -> bytes:
    """What the token holds; nothing where it is not written exactly as we write it."""
    try:
        data = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
    return data if _text(data) == token else b""
