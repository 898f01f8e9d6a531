"""A node's certificate, even one that ran out while the node lay in a shed, gets its own successor and nothing else.

Who may: the certificate is of this authority, stands in `certificates` and was not revoked, and the request is signed by its key.
A node has two certificates at most, its present one and the successor: the first renewal by the successor ends what came before.
The same request again within the hour gets the same successor, for an answer may be lost.
"""

import base64
import hashlib
from collections.abc import Callable

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, func, select, update

from edge.contract.remote import RenewAnswer, RenewRequest, renewal_text
from gateway.nodes.authority import Authority, Issued, Unsuitable, public_key_of
from gateway.nodes.brokers import Brokers
from gateway.nodes.claims import Refused, record
from gateway.nodes.signing import Signer
from gateway.state import State
from gateway.state.tables import certificates

HOUR_US = 3600 * 1_000_000


class Renewals:
    """Answers renewals. One for each gateway, safe on many threads."""

    def __init__(
        self, state: State, authority: Authority, signer: Signer, brokers: Brokers, days: int, now_us: Callable[[], int]
    ) -> None:
        """`days`: how long a new certificate is good."""
        self._state, self._authority, self._signer, self._brokers = state, authority, signer, brokers
        self._days, self._now_us = days, now_us

    def answer(self, request: RenewRequest) -> bytes:
        """A Signed RenewAnswer as JSON. Refused, with HTTP's status and the reason, for everything else."""
        # No limit to those that are refused: there is nothing to guess, and it would lock out who must renew.
        node, serial = self._proved(request)
        with self._state.write() as connection:
            issued = self._renew(connection, node, serial, request, self._now_us())
        self._brokers.tell()
        answer = RenewAnswer(
            node=node,
            certificate=issued.pem,
            ca=self._authority.pem,
            keys=[base64.b64encode(self._signer.public).decode()],
        )
        return self._signer.sign(answer).payload

    def _proved(self, request: RenewRequest) -> tuple[str, str]:
        """Node and serial number of the certificate, whose key signed this request."""
        try:
            certificate = x509.load_pem_x509_certificate(request.certificate.encode())
            node, serial = self._authority.node_of(certificate), f"{certificate.serial_number:x}"
            signature, text = base64.b64decode(request.signature, validate=True), renewal_text(request.csr)
            key = certificate.public_key()
            if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
            elif isinstance(key, Ed25519PublicKey):
                key.verify(signature, text)
            else:
                raise Unsuitable("its key is of a kind that this gateway never certified")
        except InvalidSignature:
            raise Refused(403, "signature: it was not made by the certificate's key over this csr") from None
        except Unsuitable as error:
            raise Refused(403, f"certificate: {error}. Was this node claimed by another gateway? Then claim it anew.") from None
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
            raise Refused(422, f"certificate or signature can't be read: {error}"[:200]) from None
        return node, serial

    def _renew(self, connection: Connection, node: str, serial: str, request: RenewRequest, now_us: int) -> Issued:
        row = connection.execute(select(certificates).where(certificates.c.serial == serial)).one_or_none()
        if row is None:
            raise Refused(403, "certificate: it is not on this gateway's list; claim the node anew")
        if row.revoked_us is not None:
            raise Refused(403, f"certificate: it was revoked ({row.revoked_why}); claim the node anew")
        try:
            key = public_key_of(request.csr)
        except Unsuitable as error:
            raise Refused(422, f"csr: {error}") from None
        wanted = int(hashlib.sha256(f"satomori successor\n{serial}\n{request.csr}".encode()).hexdigest()[:32], 16) | 1
        known = connection.execute(select(certificates).where(certificates.c.serial == f"{wanted:x}")).one_or_none()
        if known is not None and known.revoked_us is None and now_us - known.issued_us < HOUR_US:
            return self._authority.issue(node, key, wanted, known.issued_us, self._days)
        newest = connection.scalar(
            select(func.max(certificates.c.issued_us)).where(certificates.c.node == node, certificates.c.issued_us <= now_us)
        )
        if newest is not None and (wait_us := newest + HOUR_US - now_us) > 0:
            wait_s = -(-wait_us // 1_000_000)
            raise Refused(429, f"This node got a certificate within the last hour. Try again in {wait_s} s.", wait_s)
        issued = self._authority.issue(node, key, wanted if known is None else x509.random_serial_number(), now_us, self._days)
        others = (certificates.c.node == node, certificates.c.serial != serial, certificates.c.revoked_us.is_(None))
        connection.execute(update(certificates).where(*others).values(revoked_us=now_us, revoked_why=f"renewed by {serial}"))
        record(connection, node, issued)
        return issued
