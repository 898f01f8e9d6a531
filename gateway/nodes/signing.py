"""The key that the gateway signs with what it says to nodes. The public half goes to each node at its claim."""

import base64
import hashlib
import hmac
import os
from pathlib import Path
from typing import Any, NamedTuple

import rfc8785
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel

from edge.contract.messages import encode
from edge.contract.remote import Signed
from gateway.errors import ConfigError


class Statement(NamedTuple):
    """A signed message, ready to travel."""

    payload: bytes
    sha256: str
    """Of the canonical JSON of the statement."""


class Signer:
    """Signs statements with one Ed25519 key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public: bytes = key.public_key().public_bytes_raw()
        """32 bytes, as nodes keep them."""
        self._id = hashlib.sha256(self.public).hexdigest()[:16]

    @classmethod
    def read(cls, path: Path) -> "Signer":
        """The key in a PEM file. ConfigError when there is none."""
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        except OSError as error:
            raise ConfigError(
                f"{path} can't be read: {error.strerror}. Restore it from a backup, for nodes believe this key alone; where "
                "no node was ever claimed, run: satomori-gateway authority init gateway.toml"
            ) from error
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path} is no private key in PEM: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"{path} holds a key that is not Ed25519")
        return cls(key)

    @classmethod
    def make(cls, path: Path) -> "Signer":
        """A new key, written to `path`, which must not exist yet. FileExistsError where it does."""
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        return cls(key)

    def derived(self, purpose: str) -> str:
        """64 hex digits, the same for a purpose as long as the key is: only who has the key can know them."""
        return hmac.new(self._key.private_bytes_raw(), f"satomori {purpose}".encode(), hashlib.sha256).hexdigest()

    def sign(self, statement: BaseModel) -> Statement:
        """The statement as it travels; absent fields are left out. ValueError for what has no canonical JSON."""
        body: dict[str, Any] = statement.model_dump(mode="json", exclude_none=True)
        try:
            text = rfc8785.dumps(body)
        except rfc8785.CanonicalizationError as error:
            raise ValueError(f"can't be signed: {error}") from None
        signature = base64.b64encode(self._key.sign(text)).decode()
        message = Signed(statement=body, key=self._id, signature=signature)
        return Statement(encode(message), hashlib.sha256(text).hexdigest())
