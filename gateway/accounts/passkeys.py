"""Passkeys (WebAuthn level 2): registering one, coming in by one. In the caller's transaction; the library verifies.

The relying party is the host of `people.public_url`. Passkeys are discoverable: nobody types who they are, and nobody can ask
who is known; the device asks for a finger, a face or a code. A challenge can be answered once, within 5 minutes.

The library is imported where it is used: it is 6 MiB, and most processes that know of accounts never see a passkey.
"""

import json
import secrets
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import Connection, delete, func, insert, select, update

from gateway.accounts.sessions import MINUTE_US, sha256
from gateway.state.tables import accounts, ceremonies, passkeys

CHALLENGE_LASTS_US = 5 * MINUTE_US
MOST_PASSKEYS = 20
LONGEST_NAME = 40
_TIMEOUT_MS = CHALLENGE_LASTS_US // 1000

MOST_CHALLENGES = 10_000
"""Given out and not answered; of more, the oldest are forgotten."""
COPIED = 2**32
"""The count of a passkey that counted backwards: no device counts so far (32 bits), so neither it nor its copy opens any more."""

Purpose = Literal["register", "login"]

# What the library lets through of a browser that says nonsense: its parsers are not all guarded by its own exceptions.
_NONSENSE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, EOFError)


class Refused(Exception):
    """The passkey proves nothing. `why`, for the log and the office: unknown, late, wrong, copied, shut, full."""

    def __init__(self, why: str, account: str | None = None, passkey: str | None = None) -> None:
        super().__init__(why)
        self.why, self.account, self.passkey = why, account, passkey


class Site(NamedTuple):
    """Who we are to a browser."""

    rp_id: str
    origin: str
    name: str

    @classmethod
    def of(cls, public_url: str, name: str) -> "Site":
        """By where phones reach the gateway."""
        parts = urlsplit(public_url)
        host = parts.hostname or ""
        port = "" if parts.port in (None, {"https": 443, "http": 80}.get(parts.scheme)) else f":{parts.port}"
        shown = f"[{host}]" if ":" in host else host
        return cls(host, f"{parts.scheme}://{shown}{port}", name)


class Begun(NamedTuple):
    """What a browser needs for its part. `ticket` comes back with the answer."""

    ticket: str
    options: dict[str, Any]


class Passkey(NamedTuple):
    """One as its owner sees it."""

    id: str
    name: str
    created_us: int
    used_us: int | None
    copied: bool
    """It was found to be in two places, and opens nothing any more."""


def begin_register(connection: Connection, site: Site, account: str, name: str, now_us: int) -> Begun:
    """A challenge to this account. Refused where it has as many passkeys as there may be."""
    import webauthn
    from webauthn.helpers import structs

    mine = connection.execute(select(passkeys.c.id).where(passkeys.c.account == account)).all()
    if len(mine) >= MOST_PASSKEYS:
        raise Refused("full", account)
    options = webauthn.generate_registration_options(
        rp_id=site.rp_id,
        rp_name=site.name,
        user_id=bytes.fromhex(account),
        user_name=name,
        timeout=_TIMEOUT_MS,
        authenticator_selection=structs.AuthenticatorSelectionCriteria(
            resident_key=structs.ResidentKeyRequirement.REQUIRED,
            user_verification=structs.UserVerificationRequirement.REQUIRED,
        ),
        exclude_credentials=[structs.PublicKeyCredentialDescriptor(id=webauthn.base64url_to_bytes(row.id)) for row in mine],
    )
    ticket = _keep(connection, "register", account, options.challenge, now_us)
    return Begun(ticket, json.loads(webauthn.options_to_json(options)))


def register(
    connection: Connection, site: Site, account: str, ticket: str, said: Mapping[str, Any], name: str, now_us: int
) -> str:
    """Keeps the new passkey under this name; its id. Refused for an answer that is none to our challenge."""
    import webauthn
    from webauthn.helpers import bytes_to_base64url
    from webauthn.helpers.exceptions import WebAuthnException

    challenge = _take(connection, "register", account, ticket, now_us)
    try:
        made = webauthn.verify_registration_response(
            credential=dict(said),
            expected_challenge=challenge,
            expected_rp_id=site.rp_id,
            expected_origin=site.origin,
            require_user_verification=True,
        )
    except (WebAuthnException, *_NONSENSE) as error:
        raise Refused("wrong", account) from error
    id_ = bytes_to_base64url(made.credential_id)
    if connection.scalar(select(passkeys.c.account).where(passkeys.c.id == id_)) is not None:
        raise Refused("wrong", account, id_)
    response = said.get("response")
    transports = response.get("transports") if isinstance(response, Mapping) else None
    kept = [one for one in transports if one in _TRANSPORTS] if isinstance(transports, list) else []
    connection.execute(
        insert(passkeys).values(
            id=id_, account=account, public_key=made.credential_public_key, sign_count=made.sign_count,
            transports=",".join(dict.fromkeys(kept)), name=name, created_us=now_us,
        )
    )  # fmt: skip
    return id_


_TRANSPORTS = ("usb", "nfc", "ble", "smart-card", "cable", "hybrid", "internal")


def begin_login(connection: Connection, site: Site, now_us: int) -> Begun:
    """A challenge to whoever has a passkey of ours: no list of them, which would say who is known."""
    import webauthn
    from webauthn.helpers.structs import UserVerificationRequirement

    options = webauthn.generate_authentication_options(
        rp_id=site.rp_id, timeout=_TIMEOUT_MS, user_verification=UserVerificationRequirement.REQUIRED
    )
    ticket = _keep(connection, "login", None, options.challenge, now_us)
    return Begun(ticket, json.loads(webauthn.options_to_json(options)))


def login(connection: Connection, site: Site, ticket: str, said: Mapping[str, Any], now_us: int) -> str:
    """Whose account the passkey opens. Refused where it opens none; nothing but the challenge is used up then.

    One that counts backwards is in two places, and which of them is the owner's nobody knows: it is shut for both.
    """
    import webauthn
    from webauthn.helpers.exceptions import WebAuthnException

    challenge = _take(connection, "login", None, ticket, now_us)
    id_ = said.get("id")
    row = None
    if isinstance(id_, str):
        query = select(passkeys, accounts.c.disabled_us).join(accounts, accounts.c.id == passkeys.c.account)
        row = connection.execute(query.where(passkeys.c.id == id_)).first()
    if row is None:
        raise Refused("unknown")
    try:
        handle = _handle(said)
        proved = webauthn.verify_authentication_response(
            credential=dict(said),
            expected_challenge=challenge,
            expected_rp_id=site.rp_id,
            expected_origin=site.origin,
            credential_public_key=row.public_key,
            credential_current_sign_count=0,  # compared below, once the signature is known to be its own
            require_user_verification=True,
        )
    except (WebAuthnException, *_NONSENSE) as error:
        raise Refused("wrong", row.account, row.id) from error
    if handle is not None and handle != bytes.fromhex(row.account):
        raise Refused("wrong", row.account, row.id)
    if row.disabled_us is not None or row.sign_count >= COPIED:
        # Not "copied" anew: who has the copy could end its owner's sessions by it, again and again.
        raise Refused("shut", row.account, row.id)
    if (proved.new_sign_count or row.sign_count) and proved.new_sign_count <= row.sign_count:
        # Two devices count with one key: one of them is a copy.
        connection.execute(update(passkeys).where(passkeys.c.id == row.id).values(sign_count=COPIED))
        raise Refused("copied", row.account, row.id)
    done = connection.execute(
        update(passkeys)
        .where(passkeys.c.id == row.id, passkeys.c.sign_count == row.sign_count)
        .values(sign_count=proved.new_sign_count, used_us=now_us)
    )
    if done.rowcount != 1:  # it was used at this very moment: for once only one of them comes in
        raise Refused("late", row.account, row.id)
    return str(row.account)


def of_account(connection: Connection, account: str) -> list[Passkey]:
    """The account's passkeys, the oldest first."""
    rows = connection.execute(
        select(passkeys).where(passkeys.c.account == account).order_by(passkeys.c.created_us, passkeys.c.id)
    )
    return [Passkey(row.id, row.name, row.created_us, row.used_us, row.sign_count >= COPIED) for row in rows]


def counted(connection: Connection, accounts_: Collection[str]) -> dict[str, int]:
    """How many passkeys each of these accounts has; who has none is not in it."""
    mine = passkeys.c.account
    rows = connection.execute(select(mine, func.count()).where(mine.in_(accounts_)).group_by(mine))
    return {account: count for account, count in rows}  # noqa: C416 - rows are no pairs to mypy


def rename(connection: Connection, account: str, id_: str, name: str) -> bool:
    """False where the account has no such passkey."""
    mine = update(passkeys).where(passkeys.c.id == id_, passkeys.c.account == account)
    return connection.execute(mine.values(name=name)).rowcount == 1


def remove(connection: Connection, account: str, id_: str) -> bool:
    """False where the account has no such passkey."""
    mine = delete(passkeys).where(passkeys.c.id == id_, passkeys.c.account == account)
    return connection.execute(mine).rowcount == 1


def _keep(connection: Connection, purpose: Purpose, account: str | None, challenge: bytes, now_us: int) -> str:
    ticket = secrets.token_urlsafe(32)
    _forget(connection, now_us)
    connection.execute(
        insert(ceremonies).values(
            sha256=sha256(ticket), purpose=purpose, account=account, challenge=challenge,
            expires_us=now_us + CHALLENGE_LASTS_US,
        )
    )  # fmt: skip
    return ticket


def _forget(connection: Connection, now_us: int) -> None:
    """Challenges that are over, and of those of too many askers the oldest: open to everybody, they fill no disk."""
    connection.execute(delete(ceremonies).where(ceremonies.c.expires_us <= now_us))
    newest = select(ceremonies.c.expires_us).order_by(ceremonies.c.expires_us.desc()).offset(MOST_CHALLENGES - 1).limit(1)
    if (since_us := connection.scalar(newest)) is not None:
        connection.execute(delete(ceremonies).where(ceremonies.c.expires_us <= since_us))


def _take(connection: Connection, purpose: Purpose, account: str | None, ticket: str, now_us: int) -> bytes:
    """The challenge, which is used up by this, whatever comes of it."""
    row = connection.execute(select(ceremonies).where(ceremonies.c.sha256 == sha256(ticket))).first()
    if row is None:
        raise Refused("late", account)
    done = connection.execute(delete(ceremonies).where(ceremonies.c.sha256 == row.sha256))
    if (
        done.rowcount != 1
        or row.purpose != purpose
        or row.account != account
        or not 0 < row.expires_us - now_us <= CHALLENGE_LASTS_US
    ):
        raise Refused("late", account)
    return bytes(row.challenge)


def _handle(said: Mapping[str, Any]) -> bytes | None:
    from webauthn import base64url_to_bytes

    response = said.get("response")
    handle = response.get("userHandle") if isinstance(response, Mapping) else None
    return None if handle is None else base64url_to_bytes(handle)
