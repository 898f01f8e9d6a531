"""How a node comes to its identity: a code on its box, used once. The protocol itself is edge.contract.remote's.

Everything that an answer gives (the code used, the certificate, the token, what they replace) is committed in one transaction
before the answer leaves. An answer may be lost on a thin link, and the code must not be lost with it: the certificate's serial
number and the token are computed from the code and the request, and ECDSA is deterministic (RFC 6979). So for 15 minutes the
same request gets the same identity again, without a secret having been stored; then the code is forgotten.
"""

import base64
import hashlib
import hmac
import json
import secrets
import threading
import urllib.parse
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from edge.contract.names import is_name
from edge.contract.remote import (
    ALPHABET,
    CODE_LENGTH,
    ID_LENGTH,
    ClaimAnswer,
    ClaimRequest,
    Identity,
    claim_mac,
)
from gateway.nodes.authority import ACCOUNT, Authority, Issued, public_key_of
from gateway.nodes.brokers import Brokers
from gateway.nodes.commands import end
from gateway.nodes.limit import Limit
from gateway.nodes.signing import Signer
from gateway.state import State
from gateway.state.tables import certificates, claims, cursors, desired, node_tokens
from gateway.state.upsert import upsert
from gateway.words.refusal import Refusal

REPEAT_US = 15 * 60 * 1_000_000
"""So long the same request is answered again."""
KEPT_US = 30 * 24 * 3600 * 1_000_000
"""So long after its end a code is still known, so that who holds the box is told that it is over, and not that it is wrong."""
GUESSES = "claim_guesses"
"""Wrong codes so far, in `cursors`. Counted for unknown ids too, so that both cost one write and take the same time."""
_NOT_KNOWN = (
    "This code is not known here: it may be mistyped, replaced by a newer one, or used. Look at the box again; "
    "a new code is made by `satomori-gateway node add`."
)
BEGIN_WITH: dict[str, dict[str, Any]] = {"node": {"type": "node_health"}}
"""The devices of a node that nothing else is asked of yet."""
RESERVED = frozenset({ACCOUNT, "broker", "listener", "localhost"})
"""Names that brokers, or certificates, know as something else than a node; and all that begin with `satomori-`."""

_NOBODY = "0" * CODE_LENGTH


class Refused(Exception):
    """No identity for this request. `status` is HTTP's; the text is for who stands before the box."""

    def __init__(self, status: int, text: str, wait_s: int | None = None) -> None:
        """`wait_s`: when to try again, where that makes sense."""
        super().__init__(text)
        self.status, self.wait_s = status, wait_s


class NameTaken(Refusal):
    """This can't be a node's name."""


class Claim(NamedTuple):
    """A new code. It is shown once: the database forgets it when it is used."""

    node: str
    code: str
    expires_us: int
    voided: bool = False
    """Whether an earlier code for the node is void by it."""

    @property
    def shown(self) -> str:
        """In groups of four, as it stands on the box."""
        return "-".join(self.code[at : at + 4] for at in range(0, CODE_LENGTH, 4))


class Offer(NamedTuple):
    """What nodes are told of the town: [nodes] in gateway.toml."""

    public_url: str
    broker_url: str
    certificate_days: int
    claim_hours: int = 72
    """How long a code may be used where nothing else is said."""


def qr_text(public_url: str, code: str, node: str) -> str:
    """What the QR on the box says: where to claim, the code, and the box's name, by which an installer's phone knows it later."""
    return "satomori:claim?" + urllib.parse.urlencode({"u": public_url, "c": code, "n": node})


def add(state: State, node: str, hours: int, now_us: int, who: str, taken: frozenset[str] = frozenset()) -> Claim:
    """A code for `node`; earlier ones for it are void. What the node has now stays good until the new code is used.

    `taken`: more names that are not for nodes. NameTaken for these, and for what is no name.
    """
    check_name(node, taken)
    with state.write() as connection:
        _forget(connection, now_us)
        earlier = (claims.c.node == node, claims.c.used_us.is_(None), claims.c.code.is_not(None))
        voided = connection.execute(update(claims).where(*earlier).values(code=None)).rowcount > 0
        known = set(connection.scalars(select(claims.c.id)))
        code = _new_code()
        while code[:ID_LENGTH] in known:
            code = _new_code()
        expires_us = now_us + hours * 3600 * 1_000_000
        connection.execute(
            insert(claims).values(
                id=code[:ID_LENGTH], node=node, code=code, created_us=now_us, created_by=who, expires_us=expires_us, failures=0
            )
        )
    return Claim(node, code, expires_us, voided)


def check_name(node: str, taken: frozenset[str] = frozenset()) -> None:
    """NameTaken, saying why, for what can't be a node's name."""
    if not is_name(node):
        raise NameTaken("why.bad_name", where="node", name=repr(node[:40]))
    if node in RESERVED | taken or node.startswith("satomori-"):
        raise NameTaken("why.node_name_taken", node=node)


class Ended(NamedTuple):
    """How many of each were good until now."""

    certificates: int
    codes: int


def revoke(state: State, node: str, why: str, now_us: int) -> Ended:
    """Ends what a node has: certificates, tokens, codes and commands that wait. Tell the brokers then."""
    with state.write() as connection:
        end(connection, node, "the node was revoked meanwhile")
        codes = connection.execute(
            update(claims).where(claims.c.node == node, claims.c.code.is_not(None)).values(code=None)
        ).rowcount
        return Ended(_revoke(connection, node, why, now_us), codes)


class Claims:
    """Answers claims. One for each gateway, safe on many threads."""

    def __init__(
        self, state: State, authority: Authority, signer: Signer, brokers: Brokers, offer: Offer, now_us: Callable[[], int]
    ) -> None:
        self._state, self._authority, self._signer, self._brokers = state, authority, signer, brokers
        self._offer, self._now_us = offer, now_us
        self._limit = Limit(burst=20, every_us=3_000_000)
        self._lock = threading.Lock()

    def answer(self, id_: str, request: ClaimRequest) -> ClaimAnswer:
        """The node's identity. Refused for everything else, and that in one way for all that does not prove the code."""
        now_us = self._now_us()
        with self._state.read() as connection:
            proved = _proved(connection, id_, request)
        if proved is None:
            raise self._wrong(id_, now_us)
        with self._state.write() as connection:
            outcome = self._decide(connection, id_, request, now_us)
        self._brokers.tell()  # before the node goes there. Where this fails it was logged, and is tried again
        return outcome

    def invite(self, node: str, hours: int | None, who: str, taken: frozenset[str]) -> tuple[Claim, str]:
        """A code for `node`, as `add` makes it, and what its QR says."""
        claim = add(self._state, node, hours or self._offer.claim_hours, self._now_us(), who, taken)
        return claim, qr_text(self._offer.public_url, claim.code, node)

    def revoke(self, node: str, why: str) -> tuple[Ended, str | None]:
        """Ends what a node has, and tells the broker; why that could not be told, or None."""
        ended = revoke(self._state, node, why, self._now_us())
        return ended, self._brokers.tell() if any(ended) else None

    def forget(self) -> None:
        """Forgets codes that nobody may use any more."""
        with self._state.write() as connection:
            _forget(connection, self._now_us())

    def _wrong(self, id_: str, now_us: int) -> Refused:
        """Counts a wrong code, so that `node list` shows that somebody guesses.

        No number of them keeps who has the right code from using it: the 60 bits behind the id can't be found by asking, but a
        lock could be closed by anybody who can reach us. Only what a wrong code costs us, a durable write, has a limit.
        """
        with self._lock:
            wait_s = self._limit.wait_s(now_us)
            if not wait_s:
                self._limit.count(now_us)
        if wait_s:
            return Refused(429, f"Too many wrong codes. Try again in {wait_s} s.", wait_s)
        with self._state.write() as connection:
            _count_failure(connection, id_)
        return Refused(403, _NOT_KNOWN)

    def _decide(self, connection: Connection, id_: str, request: ClaimRequest, now_us: int) -> ClaimAnswer:
        _forget(connection, now_us)
        row = _proved(connection, id_, request)
        if row is None:
            raise Refused(403, _NOT_KNOWN)  # used and forgotten, or replaced, since we looked
        code = row.code
        serial = int(_derived(code, "serial", request)[:16].hex(), 16) | 1
        mine = connection.execute(select(certificates).where(certificates.c.serial == f"{serial:x}")).one_or_none()
        if row.used_us is not None and mine is None:
            raise Refused(409, "This code was used already, with another key. If that was not this box, revoke the node.")
        if mine is not None and mine.revoked_us is not None:
            raise Refused(409, f"What this code gave was revoked since: {mine.revoked_why}. A new code is needed.")
        if row.used_us is None and now_us >= row.expires_us:
            raise Refused(410, "This code is over. A new one is made by `satomori-gateway node add`.")
        try:
            key = public_key_of(request.csr)
        except ValueError as error:
            raise Refused(422, f"csr: {error}") from None
        issued = self._authority.issue(
            row.node, key, serial, now_us if mine is None else mine.issued_us, self._offer.certificate_days
        )
        token = base64.urlsafe_b64encode(_derived(code, "token", request)).decode().rstrip("=")
        if row.used_us is None:
            _revoke(connection, row.node, f"replaced by claim {row.id}", now_us)
            record(connection, row.node, issued)
            connection.execute(insert(node_tokens).values(sha256=_sha256(token), node=row.node, issued_us=now_us))
            connection.execute(update(claims).where(claims.c.id == row.id).values(used_us=now_us))
        body = self._identity(connection, row.node, issued, token, now_us).model_dump_json()
        return ClaimAnswer(body=body, mac=claim_mac(code, "answer", body, request.nonce))

    def _identity(self, connection: Connection, node: str, issued: Issued, token: str, now_us: int) -> Identity:
        # What the node itself could not run is no configuration to begin with.
        asked = connection.scalar(
            select(desired.c.payload)
            .where(desired.c.node == node, desired.c.outcome.is_distinct_from("failed"))
            .order_by(desired.c.revision.desc())
            .limit(1)
        )
        return Identity(
            node=node,
            certificate=issued.pem,
            ca=self._authority.pem,
            keys=[base64.b64encode(self._signer.public).decode()],
            broker_url=self._offer.broker_url,
            gateway_url=self._offer.public_url,
            token=token,
            device=BEGIN_WITH if asked is None else json.loads(asked)["statement"]["device"],
            now=now_us,
        )


def record(connection: Connection, node: str, issued: Issued) -> None:
    """Writes a new certificate down."""
    connection.execute(
        insert(certificates).values(serial=issued.serial, node=node, issued_us=issued.issued_us, not_after_us=issued.not_after_us)
    )


def _revoke(connection: Connection, node: str, why: str, now_us: int) -> int:
    open_ = (certificates.c.node == node, certificates.c.revoked_us.is_(None))
    ended = connection.execute(update(certificates).where(*open_).values(revoked_us=now_us, revoked_why=why)).rowcount
    tokens = (node_tokens.c.node == node, node_tokens.c.revoked_us.is_(None))
    connection.execute(update(node_tokens).where(*tokens).values(revoked_us=now_us))
    return ended


def _proved(connection: Connection, id_: str, request: ClaimRequest) -> Row[Any] | None:
    """The claim that the request proves to know the code of. As much work where there is none."""
    row = connection.execute(select(claims).where(claims.c.id == id_)).one_or_none()
    code = None if row is None else row.code
    mac = claim_mac(code or _NOBODY, "request", request.csr, request.nonce)
    return row if hmac.compare_digest(mac, request.mac) and code is not None else None


def _count_failure(connection: Connection, id_: str) -> None:
    """The same statements, and one durable write, whether the id is known or not."""
    connection.execute(update(claims).where(claims.c.id == id_).values(failures=claims.c.failures + 1))
    count = connection.scalar(select(func.max(cursors.c.value)).where(cursors.c.name == GUESSES)) or 0
    connection.execute(upsert(cursors, "value"), {"name": GUESSES, "value": count + 1})


def _forget(connection: Connection, now_us: int) -> None:
    """Forgets codes that nobody may use any more, and claims that were never used and are long over, whose ids are free again."""
    used = claims.c.used_us <= now_us - REPEAT_US
    connection.execute(update(claims).where(claims.c.code.is_not(None), used).values(code=None))
    connection.execute(delete(claims).where(or_(claims.c.used_us.is_(None), used), claims.c.expires_us <= now_us - KEPT_US))


def _derived(code: str, purpose: str, request: ClaimRequest) -> bytes:
    text = f"satomori claim {purpose}\n{request.nonce}\n{request.csr}"
    return hmac.new(code.encode(), text.encode(), hashlib.sha256).digest()


def _new_code() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(CODE_LENGTH))


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
