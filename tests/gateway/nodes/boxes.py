"""A node's side of claims and renewals, and a gateway with a real listener, folder and database; only its clock is the test's."""

import asyncio
import base64
import hashlib
import http.client
import json
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Table, select

from edge.contract.remote import (
    ClaimAnswer,
    ClaimRequest,
    Identity,
    RenewAnswer,
    RenewRequest,
    claim_id,
    claim_mac,
    normal_code,
    renewal_text,
)
from edge.signature import believed
from gateway.api.deps import Deps
from gateway.api.tokens import Tokens
from gateway.config import NodesConfig
from gateway.feed import Feed
from gateway.media import MediaShelf
from gateway.nodes import claims
from gateway.nodes.authority import init
from gateway.nodes.care import Care, open_care
from gateway.nodes.listener import create_node_app, listening
from gateway.state import State, open_state
from gateway.store import SqliteStore
from gateway.telemetry import Telemetry

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
NAMES = ["localhost", "127.0.0.1"]


@dataclass
class Town:
    """The gateway's part: what it has, and its clock."""

    folder: Path
    config: NodesConfig
    state: State
    care: Care
    now_us: int

    def code(self, node: str = "kitayama-03", hours: int = 72) -> str:
        return claims.add(self.state, node, hours, self.now_us, "tanaka").code

    def rows(self, table: Table) -> list[Any]:
        with self.state.read() as connection:
            return list(connection.execute(select(table)))


@contextmanager
def town(folder: Path, now_us: int | None = None) -> Iterator[Town]:
    """Certificates are judged by the real clock of who connects, so the town's begins there."""
    now_us = now_us or time.time_ns() // 1000
    authority = folder / "authority"
    init(authority, NAMES, now_us)
    config = NodesConfig(
        folder=authority, host="127.0.0.1", port=0, server_names=NAMES,
        public_url="https://localhost:8443", broker_url="mqtts://localhost:8883",
    )  # fmt: skip
    state = open_state(f"sqlite:///{folder / 'state.db'}")
    try:
        made = Town(authority, config, state, open_care(config, state, lambda: made.now_us), now_us)
        made.care.brokers.tell()
        yield made
    finally:
        state.close()


@contextmanager
def at_work(town: Town) -> Iterator[int]:
    """The node listener, over TLS on a free port, as the gateway runs it."""
    deps = Deps(
        state=town.state, store=MagicMock(SqliteStore), feed=Feed(), tokens=Tokens({}),
        media=MediaShelf(town.folder.parent / "media", town.state, lambda: town.now_us),
        telemetry=Telemetry(), now_us=lambda: town.now_us, health=dict,
    )  # fmt: skip
    ready, ports = threading.Event(), []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with listening(create_node_app(deps, town.care), town.config, town.care, lambda: town.now_us) as port:
            ports.append(port)
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            ready.set()
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(20)
        assert ports, "the listener did not start"
        yield ports[0]
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(20)


@dataclass
class Answer:
    """One answer over HTTPS."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def detail(self) -> str:
        return str(json.loads(self.body)["detail"])


def ask(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, ca: Path | None = None
) -> Answer:
    """Over TLS; without `ca` as before a claim, when a node knows nobody to trust."""
    context = ssl.create_default_context(cafile=ca)
    if ca is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
    try:
        with suppress(BrokenPipeError, ssl.SSLEOFError):  # a body that is too long is refused before all of it is sent
            connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def json_of(request: ClaimRequest | RenewRequest) -> tuple[bytes, dict[str, str]]:
    return request.model_dump_json().encode(), {"Content-Type": "application/json"}


@dataclass
class Box:
    """A node: its key, and what it says and checks."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))

    def __post_init__(self) -> None:
        self.csr = csr_of(self.key)

    def claim(self, code: str, **changed: str) -> ClaimRequest:
        return ClaimRequest(
            csr=self.csr, nonce=self.nonce, **({"mac": claim_mac(code, "request", self.csr, self.nonce)} | changed)
        )

    def identity(self, code: str, answer: ClaimAnswer) -> Identity:
        assert answer.mac == claim_mac(code, "answer", answer.body, self.nonce), "somebody else answered"
        return Identity.model_validate_json(answer.body)

    def claimed(self, town: Town, code: str) -> Identity:
        return self.identity(code, town.care.claims.answer(claim_id(code), self.claim(code)))

    def claimed_over(self, port: int, code: str) -> Identity:
        answer = ask(port, "POST", f"/api/v1/claims/{claim_id(normal_code(code))}", *json_of(self.claim(code)))
        assert answer.status == 200, answer.body
        return self.identity(code, ClaimAnswer.model_validate_json(answer.body))

    def renewal(self, certificate: str, signed_by: "Box | None" = None, csr: str | None = None) -> RenewRequest:
        signature = (signed_by or self).key.sign(renewal_text(csr or self.csr), ec.ECDSA(hashes.SHA256()))
        return RenewRequest(certificate=certificate, csr=csr or self.csr, signature=base64.b64encode(signature).decode())

    def renewed(self, town: Town, identity: Identity) -> RenewAnswer:
        payload = town.care.renewals.answer(self.renewal(identity.certificate))
        answer, _ = believed(payload, [base64.b64decode(key) for key in identity.keys], RenewAnswer, identity.node)
        return answer

    def files(self, folder: Path, certificate: str) -> tuple[Path, Path]:
        """Certificate and key as files, for TLS."""
        name = hashlib.sha256(certificate.encode()).hexdigest()[:12]
        (folder / f"{name}.pem").write_text(certificate)
        pem = self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / f"{name}-key.pem").write_bytes(pem)
        (folder / f"{name}-key.pem").chmod(0o600)
        return folder / f"{name}.pem", folder / f"{name}-key.pem"


def csr_of(key: Any, name: str = "whatever it says is not used") -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    )
    algorithm = None if isinstance(key, Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost") -> str:
    """Lets the two meet; the CN of who came. ssl.SSLError where either refuses the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = server.wrap_bio(to_server, to_client, server_side=True)
    there = client.wrap_bio(to_client, to_server, server_hostname=host)
    sides: list[Callable[[], None]] = [there.do_handshake, here.do_handshake] * 4
    for side in sides:
        try:
            side()
        except ssl.SSLWantReadError:
            continue
    subject: Any = (here.getpeercert() or {})["subject"]
    return str(dict(pair for part in subject for pair in part)["commonName"])


def broker_tls(folder: Path) -> ssl.SSLContext:
    """As a broker is set up: its own certificate, our authority, its revocation list."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "broker.pem", folder / "broker-key.pem")
    context.load_verify_locations(folder / "crl.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_X509_STRICT
    return context


def node_tls(folder: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """As a node is set up."""
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(certificate, key)
    return context
