"""What the gateway signed: canonical JSON and its Ed25519 signature, checked. The only place that decides whom to believe."""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

import rfc8785
from pydantic import BaseModel, ValidationError

from edge.contract.remote import Signed

_Statement = TypeVar("_Statement", bound=BaseModel)


class Distrusted(ValueError):
    """Not something that this node's gateway said; the text says why. Nothing of it may be used."""


def canonical(statement: dict[str, Any]) -> bytes:
    """The one text of a JSON object (RFC 8785). ValueError for what has none: NaN, whole numbers beyond 2^53."""
    try:
        return rfc8785.dumps(statement)
    except (rfc8785.CanonicalizationError, RecursionError, UnicodeError) as error:
        raise ValueError(f"no canonical JSON: {error}") from None


def key_id(public_key: bytes) -> str:
    """A key's name: 16 hex digits of the SHA-256 of its 32 raw bytes."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def believed(payload: bytes, keys: Sequence[bytes], model: type[_Statement], node: str) -> tuple[_Statement, str]:
    """The statement in a signed message, and the SHA-256 of its canonical JSON.

    `keys` are the gateway's raw public keys. Distrusted where it is not signed by one of them, is about another node, or is not
    a `model`: in this order, so that nothing unsigned is ever looked at closely.
    """
    from cryptography.exceptions import InvalidSignature  # heavy, and a node without remote care needs none of it
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        signed = Signed.model_validate_json(payload)
        text = canonical(signed.statement)
    except ValueError as error:
        raise Distrusted(f"it is no signed message: {_first_line(error)}") from None
    key = next((key for key in keys if key_id(key) == signed.key), None)
    if key is None:
        raise Distrusted(
            f"it is signed with key {signed.key}, which this node was never given; was it claimed by another gateway?"
        )
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(base64.b64decode(signed.signature, validate=True), text)
    except (InvalidSignature, ValueError):
        raise Distrusted("its signature is wrong: it was changed on its way, or is forged") from None
    if signed.statement.get("node") != node:
        raise Distrusted("it was signed for another node")
    try:
        statement = model.model_validate(signed.statement)
    except ValidationError as error:
        raise Distrusted(f"it can't be read by this version: {_first_line(error)}") from None
    return statement, hashlib.sha256(text).hexdigest()


def _first_line(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, fault["loc"]))[:60]
        return f"{where}: {fault['msg']}"[:150]
    return str(error)[:150]
