"""A device with one passkey, in software: what a browser hands over, made by the specification (WebAuthn level 2, section 6)."""

import base64
import hashlib
import json
import secrets
import struct
from typing import Any
from urllib.parse import urlsplit

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

UP, UV, AT = 0x01, 0x04, 0x40


def text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Authenticator:
    """Counts its uses, as a key on a ring does; with `counts=False` it always says 0, as telephones do."""

    def __init__(self, origin: str, *, counts: bool = True) -> None:
        self.origin, self.rp_id = origin, urlsplit(origin).hostname or ""
        self.id, self.count, self.counts = secrets.token_bytes(16), 0, counts
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.handle = ""

    def copy(self) -> "Authenticator":
        """As a thief has it: the same key, and the count of the moment of the theft."""
        other = Authenticator(self.origin)
        other.__dict__.update(self.__dict__)
        return other

    def _client(self, kind: str, options: dict[str, Any], origin: str | None) -> bytes:
        said = {"type": kind, "challenge": options["challenge"], "origin": origin or self.origin, "crossOrigin": False}
        return json.dumps(said).encode()

    def _data(self, flags: int, rp_id: str | None) -> bytes:
        self.count += 1 if self.counts else 0
        return hashlib.sha256((rp_id or self.rp_id).encode()).digest() + struct.pack(">BI", flags, self.count)

    def make(
        self, options: dict[str, Any], *, origin: str | None = None, rp_id: str | None = None, flags: int = UP | UV
    ) -> dict[str, Any]:
        assert options["rp"]["id"] == self.rp_id
        assert options["authenticatorSelection"]["userVerification"] == "required"
        self.handle = options["user"]["id"]
        numbers = self.key.public_key().public_numbers()
        key = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        attested = bytes(16) + struct.pack(">H", len(self.id)) + self.id + cbor2.dumps(key)
        data = self._data(flags | AT, rp_id) + attested
        response = {
            "clientDataJSON": text(self._client("webauthn.create", options, origin)),
            "attestationObject": text(cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})),
            "transports": ["internal", "no-such-way"],
        }
        return {"id": text(self.id), "rawId": text(self.id), "type": "public-key", "response": response}

    def get(
        self, options: dict[str, Any], *, origin: str | None = None, rp_id: str | None = None, flags: int = UP | UV,
        forged: bool = False, handle: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        assert options.get("allowCredentials", []) == []
        client, data = self._client("webauthn.get", options, origin), self._data(flags, rp_id)
        key = ec.generate_private_key(ec.SECP256R1()) if forged else self.key
        signature = key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        response = {
            "clientDataJSON": text(client), "authenticatorData": text(data), "signature": text(signature),
            "userHandle": self.handle if handle is None else handle,
        }  # fmt: skip
        return {"id": text(self.id), "rawId": text(self.id), "type": "public-key", "response": response}
