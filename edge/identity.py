"""How a node comes to its identity and keeps it: the claim by the code on its box, and the renewal of its certificate.

`<state>/identity` is a link to a folder that holds all of it (key, certificate, authority, the gateway's public keys, token, and
edge.toml, to which `<state>/edge.toml` is a link). A new identity is written beside it, and the link is turned when all of it is
durable: at every moment there is a whole one or none. Nothing is overwritten.
"""

import base64
import hashlib
import hmac
import http.client
import json
import logging
import random
import re
import secrets
import shutil
import ssl
import tomllib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from edge.apart import apart
from edge.clock import Clock
from edge.config import checked
from edge.contract.names import Hex16
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
from edge.durable import hand_over, sync_folder, write_whole
from edge.errors import ConfigError
from edge.signature import Distrusted, believed
from edge.timekeeper import remember
from edge.tls import client_context

log = logging.getLogger(__name__)

FOLDER = "identity"
QR_PREFIX = "satomori:claim"
TIMEOUT_S = 30.0
MAX_ANSWER_BYTES = 256 * 1024
SAID_FROM_AFAR = ("twin.json", "expected.json")
"""What a gateway asked of the node: it ends with the identity. Another gateway's revisions are others; its own come back."""

WRITTEN_BY = b"""\
# Written by satomori-edge claim. A configuration that the gateway asks for takes the place of all [device] sections below:
# `satomori-edge check` says which runs, `satomori-edge own` comes back to these.

"""
_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)

FIRST_LOOK_S, LOOK_S = 60.0, 3600.0
RENEW_WITH = 1 / 3
"""Of a certificate's life: with so much of it left, the next one is asked for."""


class ClaimRefused(ConfigError):
    """The code, or what the gateway answered to it, can't be used. Trying again does not help."""


class Unreachable(OSError):
    """The gateway did not answer, or not now. Trying again later may help."""


class Invitation(NamedTuple):
    """What the sticker on the box says."""

    code: str
    url: str | None


class Certificate(NamedTuple):
    """What this node's certificate says of itself; times in UTC s since 1970."""

    begins_s: float
    ends_s: float

    def is_due(self, now_s: float) -> bool:
        """Whether its successor should be asked for."""
        return now_s > self.ends_s - (self.ends_s - self.begins_s) * RENEW_WITH


class _Begun(BaseModel):
    """What was asked and not answered yet. The same is asked again, so that a lost answer costs nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    key: str
    csr: str
    nonce: Hex16


def invitation(text: str) -> Invitation:
    """Reads a code as printed, or the text of the QR code beside it. ConfigError for anything else."""
    url = None
    if text.strip().startswith(QR_PREFIX):
        said = parse_qs(urlsplit(text.strip()).query)
        if not {"u", "c"} <= said.keys():
            raise ConfigError(f"CODE: {text!r} is not of the form {QR_PREFIX}?u=https://...&c=...")
        url, text = said["u"][0], said["c"][0]
    try:
        return Invitation(normal_code(text), url)
    except ValueError as error:
        raise ConfigError(f"CODE: {error}") from error


def claim(code: str, url: str, state: Path, self_test_pin: int | None = None) -> str:
    """Makes a key on this device, proves the code to the gateway, and writes what it answers as this node's identity.

    The server's certificate is NOT verified: a new node has no authority to check it by, and perhaps no right clock. The code,
    which never travels, authenticates both sides instead: only who knows it can answer with the right MAC. What somebody in
    between could still do is to read the answer, and with it the token that pictures are uploaded with; not the key.

    `self_test_pin`: where this box has its self-test's button, if no device that the gateway gives has that pin.

    Returns the node's name. ClaimRefused when the code or the answer can't be used, Unreachable when it may work later, OSError
    when the disk fails. An identity that was there before stays until the new one is complete.
    """
    state.mkdir(parents=True, exist_ok=True)
    begun = _begun(state / "claiming", claim_id(code))
    if not _is_written(state, begun):
        try:
            said = _asked(code, url, begun)
        except ClaimRefused as error:
            if (node := _node(state)) is None:
                raise
            raise ClaimRefused(
                f"{error}\nThis box is node {node} already, and stays it. If this code made it so, there is nothing left to do."
            ) from error
        files = _files(said, begun.key, state, self_test_pin)
        remember(state, said.now)
        for name in SAID_FROM_AFAR:
            (state / name).unlink(missing_ok=True)
        _write(state, files)
    _turn(state / "edge.toml", Path(FOLDER) / "edge.toml")
    shutil.rmtree(state / "claiming")
    node = _node(state)
    if node is None:
        raise OSError(f"{state / 'edge.toml'} can't be read back. Is the disk well?")
    return node


def certificate(pem: bytes) -> Certificate:
    """ConfigError when it is none."""
    from cryptography import x509

    try:
        said = x509.load_pem_x509_certificate(pem)
    except (ValueError, x509.InvalidVersion) as error:
        raise ConfigError(f"it is no certificate in PEM: {error}") from error
    return Certificate(said.not_valid_before_utc.timestamp(), said.not_valid_after_utc.timestamp())


def renew(state: Path, url: str, node: str, *, clock: str) -> Certificate:
    """A new key, and the certificate for it; everything else stays. `clock` is this node's: sync, holdover or unsync.

    ClaimRefused when the gateway does not renew this certificate (revoked, or of another gateway), or answers what can't be
    believed; Unreachable when it may work later; ConfigError when there is no identity to renew.
    """
    folder = state / FOLDER
    try:
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        old_key, old_certificate = files["key.pem"], files["certificate.pem"].decode()
        keys = _keys(files["keys.json"])
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(f"{folder} holds nothing to renew ({error!r}). Claim this node: satomori-edge claim CODE") from error
    begun = _begun(state / "renewing", hashlib.sha256(old_certificate.encode()).hexdigest())
    signature = _signed(old_key, renewal_text(begun.csr))
    request = RenewRequest(certificate=old_certificate, csr=begun.csr, signature=signature)
    context = client_context("remote", folder / "ca.pem", clock=clock)
    try:
        answer, _ = believed(_ask(url, "/api/v1/renewals", request, context), keys, RenewAnswer, node)
        _check_fits(answer.certificate, answer.ca, begun.key, node)
        _keys(json.dumps(answer.keys).encode())
    except (Distrusted, ValueError) as error:
        raise ClaimRefused(f"what {url} answered to the renewal can't be used: {error}") from error
    made = certificate(answer.certificate.encode())
    files |= {
        "key.pem": begun.key.encode(),
        "certificate.pem": answer.certificate.encode(),
        "ca.pem": answer.ca.encode(),
        "keys.json": json.dumps(answer.keys).encode(),
    }
    _write(state, files)
    shutil.rmtree(state / "renewing")
    return made


class Renewal:
    """Keeps the certificate good, for as long as the agent runs."""

    def __init__(
        self, state: Path, url: str, node: str, clock: Clock, clock_state: Callable[[], str], rng: random.Random,
        renewed: Callable[[], None],
    ) -> None:  # fmt: skip
        """`renewed` is called when another certificate is there: the link must show it from now on."""
        self._state, self._url, self._node = state, url, node
        self._clock, self._clock_state, self._rng, self._renewed = clock, clock_state, rng, renewed
        self._down = False

    async def run(self) -> None:
        """Looks each hour or so, the first time soon; never at the same moment as the other nodes.

        While the clock is not right it looks each minute: when it becomes so, the certificate may turn out to have ended in
        storage, and until it is renewed no broker takes this node.
        """
        await self._clock.sleep(self._rng.uniform(0, FIRST_LOOK_S))
        while True:
            unsure = self._clock_state() == "unsync"
            await self.look()
            pause_s = FIRST_LOOK_S if unsure and not self._down else LOOK_S
            await self._clock.sleep(self._rng.uniform(0.75, 1.25) * pause_s)

    async def look(self) -> bool:
        """Asks for a successor if it is time. Whether there is one now."""
        try:
            present = certificate((self._state / FOLDER / "certificate.pem").read_bytes())
            if not present.is_due(self._clock.now().utc_us / 1e6):
                return False
            made = await apart(partial(renew, self._state, self._url, self._node, clock=self._clock_state()))
            log.info("the certificate is renewed; good until %s", datetime.fromtimestamp(made.ends_s, UTC).date())
            self._renewed()
        except (ConfigError, OSError) as error:
            if not self._down:
                log.error("this node's certificate can't be renewed: %s. Trying again, without another word.", error)
            self._down = True
            return False
        self._down = False
        return True


def keys_in(path: Path) -> list[bytes]:
    """The gateway's raw public keys in a keys_file. ConfigError when it can't be read."""
    try:
        return _keys(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"remote.keys_file: {path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"remote.keys_file: {path} is no list of public keys in base64: {error}") from error


def toml(document: Mapping[str, Any]) -> str:
    """JSON values as TOML that a person can go on writing in: a section a table, a setting a line; what is null is left out.

    ValueError for what has no TOML.
    """
    text = "\n".join(_sections((), document))
    if tomllib.loads(text) != json.loads(json.dumps(document), object_hook=_without_nulls):
        raise ValueError("it has no TOML")
    return text


# The claim


def _node(state: Path) -> str | None:
    """The name in an edge.toml that a claim wrote; None where there is none."""
    if not (state / FOLDER).is_symlink():
        return None
    try:
        return str(tomllib.loads((state / FOLDER / "edge.toml").read_text(encoding="utf-8"))["node"]["name"])
    except (OSError, ValueError, KeyError, TypeError):  # somebody's own words, perhaps: then it says nothing of a claim
        return None


def _begun(folder: Path, id_: str) -> _Begun:
    """What was begun in the folder for this id, or a new beginning, durable."""
    path = folder / "request.json"
    try:
        begun = _Begun.model_validate_json(path.read_bytes())
        if begun.id == id_:
            return begun
    except (FileNotFoundError, ValidationError):  # never begun, or cut short: then nothing was asked with it
        pass
    key, csr = _new_key()
    begun = _Begun(id=id_, key=key, csr=csr, nonce=secrets.token_hex(8))
    folder.mkdir(exist_ok=True, mode=0o700)
    hand_over(folder, folder.parent)
    write_whole(path, begun.model_dump_json().encode())
    sync_folder(folder.parent)
    return begun


def _asked(code: str, url: str, begun: _Begun) -> Identity:
    request = ClaimRequest(csr=begun.csr, nonce=begun.nonce, mac=claim_mac(code, "request", begun.csr, begun.nonce))
    blind = ssl.create_default_context()
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    body = _ask(url, f"/api/v1/claims/{begun.id}", request, blind)
    return _believed_identity(body, code, begun)


def _is_written(state: Path, begun: _Begun) -> bool:
    """Whether the answer came and was written, and only the end of it was cut short."""
    try:
        return (state / FOLDER / "key.pem").read_text(encoding="ascii") == begun.key
    except FileNotFoundError:
        return False


def _believed_identity(body: bytes, code: str, begun: _Begun) -> Identity:
    try:
        answer = ClaimAnswer.model_validate_json(body)
    except ValidationError as error:
        raise ClaimRefused("what answered is no satomori gateway: is --gateway its node listener?") from error
    if not hmac.compare_digest(answer.mac, claim_mac(code, "answer", answer.body, begun.nonce)):
        raise ClaimRefused("the answer was not made by who knows this code: it was changed on its way, or is forged")
    try:
        identity = Identity.model_validate_json(answer.body)
        _check_fits(identity.certificate, identity.ca, begun.key, identity.node)
        _keys(json.dumps(identity.keys).encode())
    except ValueError as error:
        raise ClaimRefused(f"the gateway answered what this version can't use: {_line(error)}") from error
    return identity


def _files(identity: Identity, key: str, state: Path, self_test_pin: int | None) -> dict[str, bytes]:
    folder = state.absolute() / FOLDER
    document: dict[str, Any] = {
        "node": {"name": identity.node, "state": str(state.absolute())},
        "broker": {
            "url": identity.broker_url,
            # Where client ids are not tied to users (NATS), who knows one can end its owner's connection: nobody knows this one.
            "client_id": f"{identity.node}-{hashlib.sha256(identity.token.encode()).hexdigest()[:16]}",
            "ca_file": str(folder / "ca.pem"),
            "certificate_file": str(folder / "certificate.pem"),
            "key_file": str(folder / "key.pem"),
        },
        "media": {"url": identity.gateway_url, "token_file": str(folder / "token"), "ca_file": str(folder / "ca.pem")},
        "remote": {"url": identity.gateway_url, "keys_file": str(folder / "keys.json")},
        "device": identity.device,
    }
    try:
        checked(document)
    except ConfigError as error:
        # The code is spent by now. A node that can be reached can be given other devices; one without identity needs a visit.
        log.error("the gateway gave devices that this version can't run; beginning with none but the node itself: %s", error)
        document["device"] = {"node": {"type": "node_health"}}
    if self_test_pin is not None:
        with_button = {"self_test": {"pin": self_test_pin}} | document
        try:
            checked(with_button)
        except ConfigError as error:
            log.error("this node has no button for its self-test: %s", error)
        else:
            document = with_button
    try:
        checked(document)
        written = toml(document)
    except ValueError as error:
        raise ClaimRefused(f"the gateway answered what this version can't use: {_line(error)}") from error
    return {
        "key.pem": key.encode(),
        "certificate.pem": identity.certificate.encode(),
        "ca.pem": identity.ca.encode(),
        "keys.json": json.dumps(identity.keys).encode(),
        "token": identity.token.encode(),
        "edge.toml": WRITTEN_BY + written.encode(),
    }


def _check_fits(certificate_pem: str, ca_pem: str, key_pem: str, node: str) -> None:
    """ValueError unless the certificate is this node's, for this key, and of that authority."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509.oid import NameOID

    said, ca = (x509.load_pem_x509_certificate(pem.encode()) for pem in (certificate_pem, ca_pem))
    if said.public_key() != load_pem_private_key(key_pem.encode(), None).public_key():
        raise ValueError("the certificate is for another key")
    try:
        said.verify_directly_issued_by(ca)
    except (InvalidSignature, TypeError) as error:
        raise ValueError("the certificate is not of the authority that came with it") from error
    if [name.value for name in said.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] != [node]:
        raise ValueError(f"the certificate is not for node {node}")


# Keys


def _new_key() -> tuple[str, str]:
    """A P-256 key and a request to certify it, both in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode(), csr.public_bytes(Encoding.PEM).decode()


def _signed(key_pem: bytes, text: bytes) -> str:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(key_pem, None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ConfigError("the key of this node is no EC key: claim it anew")
    return base64.b64encode(key.sign(text, ECDSA(hashes.SHA256()))).decode()


def _keys(content: bytes) -> list[bytes]:
    said = json.loads(content)
    if not isinstance(said, list) or not said:
        raise ValueError("not a list with at least one")
    keys = [base64.b64decode(text, validate=True) for text in said]
    if any(len(key) != 32 for key in keys):
        raise ValueError("an Ed25519 key has 32 bytes")
    return keys


# The disk


def _write(state: Path, files: Mapping[str, bytes]) -> None:
    """Makes a folder of these files the identity, all of them at once."""
    folder = state / f"{FOLDER}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    hand_over(folder, state)
    for name, content in files.items():
        write_whole(folder / name, content)
    sync_folder(state)
    _turn(state / FOLDER, Path(folder.name))
    for other in state.glob(f"{FOLDER}-*"):
        if other != folder and not other.is_symlink():
            shutil.rmtree(other)


def _turn(link: Path, target: Path) -> None:
    """Makes the link point there. A file or folder of a person's own in its place is kept beside it."""
    if link.is_symlink() and link.readlink() == target:
        return
    if link.exists() and not link.is_symlink():
        aside = link.with_name(f"{link.name}.before-{secrets.token_hex(4)}")
        link.rename(aside)
        log.warning("%s was there before; kept as %s", link, aside.name)
    new = link.with_name(f"{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)
    sync_folder(link.parent)


# The wire


def _ask(url: str, path: str, request: BaseModel, context: ssl.SSLContext) -> bytes:
    parts = _address(url)
    try:
        connection = http.client.HTTPSConnection(parts.host, parts.port, timeout=TIMEOUT_S, context=context)
    except http.client.InvalidURL as error:
        raise ConfigError(f"{url!r} is no address: {error}") from error
    try:
        connection.request("POST", parts.path + path, request.model_dump_json(), {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read(MAX_ANSWER_BYTES)
    except UnicodeError as error:
        raise ConfigError(f"{url!r} is no address: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{url} can't be reached: {str(error) or type(error).__name__}. Is the network there?") from error
    finally:
        connection.close()
    if response.status == 200:
        return body
    # A gateway that says why says what to do, too: nobody needs to read that twice.
    code, why = response.status, _detail(body)
    if code == 429 or code >= 500:
        raise Unreachable(f"{url} can't answer now ({code}). {why or 'Try again in some minutes.'}")
    if isinstance(request, ClaimRequest):
        why = why or (
            "It may be mistyped, used already or older than it is good for; a new one comes from: satomori-gateway node add"
        )
        raise ClaimRefused(f"{url} does not take this code ({code}). {why}")
    raise ClaimRefused(f"{url} does not renew this node's certificate ({code}). {why or 'Was it revoked?'}")


class _Address(NamedTuple):
    host: str
    port: int | None
    path: str


def _address(url: str) -> _Address:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is no address: {error}") from error
    if parts.scheme != "https" or not host or parts.query or parts.fragment or parts.username:
        raise ConfigError(f"{url!r} is not of the form https://host:port")
    return _Address(host, port, parts.path.rstrip("/"))


def _detail(body: bytes) -> str:
    """What the problem is and what to do about it, where a problem+json says so."""
    try:
        said = json.loads(body)
        text = said.get("detail") if isinstance(said, dict) else None
    except (ValueError, RecursionError):
        return ""
    return str(text)[:300] if text else ""


def _line(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"[:300]
    return str(error)[:300]


def _without_nulls(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


def _sections(path: tuple[str, ...], table: Mapping[str, Any]) -> Iterator[str]:
    """The table with its own settings, if it has any, and then the tables in it: none is declared that need not be, so that
    another `[device]` may follow `[device.trap-11]`."""
    settings = {key: value for key, value in table.items() if value is not None and not isinstance(value, Mapping)}
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    if settings or not tables:
        header = [f"[{'.'.join(map(_key, path))}]"] if path else []
        yield "".join(f"{line}\n" for line in (*header, *(f"{_key(key)} = {_toml(value)}" for key, value in settings.items())))
    for key, value in tables.items():
        yield from _sections((*path, key), value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _toml(key)


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items() if item is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    raise ValueError(f"{type(value).__name__} has no TOML")
