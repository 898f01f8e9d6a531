"""Remote care on the wire: desired configuration, commands, expected tags, and how a node comes to its identity. Shapes.

What the gateway says under its signature is a `Signed`: the statement, the id of the key and an Ed25519 signature (RFC 8032)
over the canonical JSON (RFC 8785) of the statement. The statement itself names its kind and its node, so that no signed words
can be used for another node or another purpose. Signing and checking need a library: `edge.signature`, `gateway.nodes`.

A claim proves both sides by the code on the box, which never travels: it is 16 characters of Crockford's base 32 (80 bits), of
which the first 4 are the claim's `id` and may be known, and the code as a whole is the key of an HMAC-SHA256 over what each side
says. So the node needs no certificate to trust, and no right clock, before it has its own.
"""

import hashlib
import hmac
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from edge.contract.events import MAX_SEQ
from edge.contract.messages import VERSION, Reason, TimeUs, Version
from edge.contract.names import Hex16, Name, Sha256

MAX_DEVICES = 1000
MAX_EXPECTED = 1000
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no I, L, O, U, so that a code survives being read aloud."""
CODE_LENGTH = 16
ID_LENGTH = 4

_strict = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

Base64 = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9+/]*={0,2}$", max_length=400)]
Pem = Annotated[str, StringConstraints(strict=True, max_length=20_000, pattern=r"^-----BEGIN [A-Z ]+-----\n")]
Revision = Annotated[int, Field(strict=True, ge=1, le=MAX_SEQ)]


class Signed(BaseModel):
    """What travels on `down/desired`, `down/command/{id}` and `down/expected`."""

    model_config = _strict

    v: Version = VERSION
    statement: dict[str, Any] = Field(description="A Desired, Command or Expected as JSON: exactly what was signed.")
    key: Hex16 = Field(description="First 8 bytes of the SHA-256 of the raw public key: which of the gateway's keys signed.")
    signature: Base64 = Field(description="Ed25519 over the canonical JSON of `statement`.")


class RemoteBroker(BaseModel):
    """What of `[broker]` can be changed from afar; a field that is absent stays as it is in the node's own file."""

    model_config = _strict

    url: str | None = None
    keepalive_s: int | None = None
    backoff_cap_s: float | None = None


class Desired(BaseModel):
    """The configuration that a node should run; retained. A revision is used once and only grows."""

    model_config = _strict

    kind: Literal["desired"] = "desired"
    node: Name
    revision: Revision
    device: Annotated[dict[Name, dict[str, Any]], Field(min_length=1, max_length=MAX_DEVICES)] = Field(
        description="All devices, each as in edge.toml; replaces the table as a whole."
    )
    broker: RemoteBroker | None = None


class Reported(BaseModel):
    """What became of a desired document; retained."""

    model_config = _strict

    v: Version = VERSION
    revision: Annotated[int, Field(strict=True, ge=0, le=MAX_SEQ)] = Field(description="The revision this is about; 0 when none.")
    sha256: Sha256 | None = Field(None, description="Of the canonical JSON of the statement it is about.")
    outcome: Literal["applied", "failed"]
    running: Annotated[int, Field(strict=True, ge=0, le=MAX_SEQ)] = Field(
        description="The revision that runs now; 0 is the node's own file."
    )
    reason: Reason | None = Field(None, description="Why it failed.")


CommandName = Literal["identify", "ping", "test_alarm", "take_picture", "restart_device", "upload_diagnostics"]
"""What this version knows. Another version may know more: what a node does not know it refuses."""


class Command(BaseModel):
    """One order to one node: never retained, executed at most once, not after `expires`. A ping changes nothing: it is answered
    whenever it is heard."""

    model_config = _strict

    kind: Literal["command"] = "command"
    node: Name
    id: Name
    name: Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z_]{1,32}$")] = Field(
        description="A CommandName, or one that only a later version knows."
    )
    device: Name | None = Field(None, description="For test_alarm, take_picture and restart_device.")
    issued: TimeUs
    expires: TimeUs = Field(description="UTC µs; a node whose clock is not right refuses rather than guesses.")


class Result(BaseModel):
    """What became of a command; on `up/result/{id}`, not retained. Said again, the same, when the command comes again."""

    model_config = _strict

    v: Version = VERSION
    state: Literal["done", "failed", "refused"]
    reason: Reason | None = None
    media: Sha256 | None = Field(None, description="What the command made: a picture, or diagnostics; the bytes go by HTTP.")
    rssi_dbm: Annotated[int, Field(strict=True, ge=-200, le=50)] | None = Field(
        None, description="Of a ping: how the node hears its own way to the network, as `uplink_rssi`; absent where it can't say."
    )


class Expected(BaseModel):
    """What rotating tags will call themselves: identifiers, never keys; retained."""

    model_config = _strict

    kind: Literal["expected"] = "expected"
    node: Name
    revision: Revision
    tags: Annotated[
        list[tuple[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")], Name, TimeUs, TimeUs]],
        Field(max_length=MAX_EXPECTED),
    ] = Field(description="[Eddystone-EID in hex, the tag's name, valid from, valid until (excluded); UTC µs].")


class ClaimRequest(BaseModel):
    """POST /api/v1/claims/{id} of the gateway's node listener."""

    model_config = _strict

    csr: Pem = Field(description="PKCS #10 for a key that never leaves the device; its subject is not used.")
    nonce: Hex16
    mac: Sha256 = Field(description="`claim_mac(code, 'request', csr, nonce)`.")


class Identity(BaseModel):
    """All that a node needs to work. `edge` is a complete edge.toml as JSON, without paths: those are the node's own."""

    model_config = _strict

    node: Name
    certificate: Pem = Field(description="The node's certificate: CN and DNS name are the node's name.")
    ca: Pem = Field(description="The town's own authority.")
    keys: list[Base64] = Field(description="Raw Ed25519 public keys that desired documents and commands are signed with.")
    broker_url: str
    gateway_url: str = Field(description="https://host:port of the node listener: media and renewal.")
    token: str = Field(description="Bearer token of this node for its media.")
    device: dict[Name, dict[str, Any]] = Field(description="Devices to begin with.")
    now: TimeUs = Field(description="The gateway's clock: no time before this one can be now.")


class ClaimAnswer(BaseModel):
    """The answer: `body` is an Identity as JSON text, exactly as `mac` was made over it."""

    model_config = _strict

    body: str
    mac: Sha256 = Field(description="`claim_mac(code, 'answer', body, nonce)`.")


class RenewRequest(BaseModel):
    """POST /api/v1/renewals: a node's certificate, even an expired one, may ask for its own successor and for nothing else."""

    model_config = _strict

    certificate: Pem = Field(description="The present certificate.")
    csr: Pem
    signature: Base64 = Field(description="ECDSA-SHA256 (DER) by the present key over `renewal_text(csr)`.")


class RenewAnswer(BaseModel):
    """The successor, and what else changes over the years. Signed as everything the gateway says."""

    model_config = _strict

    kind: Literal["renewal"] = "renewal"
    node: Name
    certificate: Pem
    ca: Pem
    keys: list[Base64]


def renewal_text(csr: str) -> bytes:
    """What a node signs to renew itself."""
    return b"satomori renewal\n" + csr.encode()


def claim_mac(code: str, purpose: Literal["request", "answer"], text: str, nonce: str) -> str:
    """HMAC-SHA256 in hex, keyed by the normalised code, over purpose, nonce and text."""
    message = f"satomori claim {purpose}\n{nonce}\n{text}".encode()
    return hmac.new(normal_code(code).encode(), message, hashlib.sha256).hexdigest()


def normal_code(code: str) -> str:
    """A claim code as it was meant: upper case, without separators, I and L as 1, O as 0. ValueError when it is none."""
    text = code.upper().replace("-", "").replace(" ", "").translate(str.maketrans("ILO", "110"))
    if len(text) != CODE_LENGTH or set(text) - set(ALPHABET):
        raise ValueError(f"not {CODE_LENGTH} letters and digits like 7K3M-9QWX-2B4D-HT6V: is it the code on the box?")
    return text


def claim_id(code: str) -> str:
    """The part of a code that may be known: where the gateway looks it up."""
    return normal_code(code)[:ID_LENGTH]
