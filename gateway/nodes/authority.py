"""The town's own certificate authority: its files, and what it signs. EC P-256 (FIPS 186-5), X.509 (RFC 5280). No database.

    ca.pem, ca-key.pem              the authority, for ten years
    signing-key.pem                 Ed25519: what the gateway says to nodes (gateway.nodes.signing)
    broker.pem, broker-key.pem      the broker's server certificate
    listener.pem, listener-key.pem  the node listener's server certificate
    gateway.pem, gateway-key.pem    the gateway's client certificate for the broker
    crl.pem, nats-nodes.conf        what brokers go by (gateway.nodes.brokers)

A node's certificate has the name as CN and DNS name, for brokers that go by names, and its own serial number in the subject too
(X.520 serialNumber), so that a broker without revocation lists can tell two certificates of one node apart.
"""

import datetime as dt
import ipaddress
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge.contract.names import is_name
from gateway.errors import ConfigError
from gateway.nodes.signing import Signer

CA, CA_KEY, SIGNING_KEY, CRL = "ca.pem", "ca-key.pem", "signing-key.pem", "crl.pem"
BROKER, LISTENER, GATEWAY = "broker", "listener", "gateway"

CA_DAYS = 3653
OWN_DAYS = 1096
"""Of the broker's, the listener's and the gateway's certificates; a year before the end they are made anew."""
RENEW_BEFORE = dt.timedelta(days=365)
BACKDATED = dt.timedelta(minutes=5)
"""A node whose clock is a little behind takes its new certificate all the same."""
ACCOUNT = "gateway"
"""What brokers know this gateway as."""

NodeKey = ec.EllipticCurvePublicKey | Ed25519PublicKey


class Unsuitable(ValueError):
    """A request or certificate that can't be used; the text says what is wrong with it."""


class Issued(NamedTuple):
    """A new certificate of a node."""

    pem: str
    serial: str
    """In hex, as in the table `certificates`."""
    issued_us: int
    not_after_us: int


class Revoked(NamedTuple):
    """One line of the revocation list."""

    serial: str
    revoked_us: int


class Authority:
    """Signs with the authority's key, which it holds in memory."""

    def __init__(self, folder: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.folder = folder
        self._certificate, self._key = certificate, key
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()

    @classmethod
    def read(cls, folder: Path) -> "Authority":
        """The authority in a folder. ConfigError, with what to do, when there is none or others can get at it."""
        _guarded(folder)
        _must_be_whole(folder)
        certificate, key = _certificate(folder / CA), _key(folder / CA_KEY)
        if certificate.public_key() != key.public_key():
            raise ConfigError(f"nodes.folder: {folder / CA_KEY} is not the key of {folder / CA}: restore both from one backup")
        return cls(folder, certificate, key)

    def issue(self, node: str, key: NodeKey, serial: int, now_us: int, days: int) -> Issued:
        """A client certificate for `node`, never longer than the authority itself. The same arguments give the same bytes."""
        issued = _utc(now_us)
        text = f"{serial:x}"
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node), x509.NameAttribute(NameOID.SERIAL_NUMBER, text)])
        not_after = min(issued + dt.timedelta(days=days), self._certificate.not_valid_after_utc)
        builder = self._leaf(subject, key, serial, issued - BACKDATED, not_after, [x509.DNSName(node)])
        certificate = self._signed(builder, ExtendedKeyUsageOID.CLIENT_AUTH)
        return Issued(_pem(certificate).decode(), text, now_us, _us(not_after))

    def node_of(self, certificate: x509.Certificate) -> str:
        """The node that this authority made the certificate for, valid still or not. Unsuitable when it made no such thing."""
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (InvalidSignature, ValueError, TypeError):
            raise Unsuitable("the certificate is not of this gateway's authority") from None
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if len(names) != 1 or not is_name(names[0].value):
            raise Unsuitable("the certificate names no node")
        return str(names[0].value)

    def revocations(self, revoked: Iterable[Revoked], now_us: int, before: bytes | None) -> bytes:
        """The revocation list in PEM; `before` is the one that it replaces.

        OpenSSL may still hold the older one and goes by the newer *second*, so each is at least a second newer. It is valid
        as long as the authority: a list that runs out would lock out every node, and brokers read it from a file that we keep.
        """
        last = x509.load_pem_x509_crl(before).last_update_utc if before else None
        made = (_utc(now_us) - BACKDATED).replace(microsecond=0)
        made = max(made, self._certificate.not_valid_before_utc)
        if last is not None:
            made = max(made, last + dt.timedelta(seconds=1))
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(made)
            .next_update(self._certificate.not_valid_after_utc)
            .add_extension(x509.CRLNumber(int(made.timestamp())), critical=False)
            .add_extension(self._key_identifier(), critical=False)
        )
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(int(one.serial, 16)).revocation_date(_utc(one.revoked_us))
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def renew_own(self, names: Sequence[str], now_us: int) -> list[str]:
        """Makes what is missing of the gateway's and broker's own certificates, ends within a year, has other names or is not
        good yet.

        Returns what was made, as file names. An older key is not used again. `names`: DNS names and addresses of the servers.
        """
        made: list[str] = []
        wanted: dict[str, tuple[list[x509.GeneralName], x509.ObjectIdentifier]] = {
            BROKER: (_general(names), ExtendedKeyUsageOID.SERVER_AUTH),
            LISTENER: (_general(names), ExtendedKeyUsageOID.SERVER_AUTH),
            GATEWAY: ([x509.DNSName(ACCOUNT)], ExtendedKeyUsageOID.CLIENT_AUTH),
        }
        for role, (general, usage) in wanted.items():
            if self._still_good(role, general, now_us):
                continue
            key = ec.generate_private_key(ec.SECP256R1())
            now = _utc(now_us)
            not_after = min(now + dt.timedelta(days=OWN_DAYS), self._certificate.not_valid_after_utc)
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ACCOUNT if role == GATEWAY else f"satomori {role}")])
            serial = x509.random_serial_number()
            builder = self._leaf(subject, key.public_key(), serial, now - BACKDATED, not_after, general)
            # The key first: a crash in between leaves a pair that does not fit, which `_still_good` sees and replaces.
            write_whole(self.folder / f"{role}-key.pem", _key_pem(key), 0o640 if role == BROKER else 0o600)
            write_whole(self.folder / f"{role}.pem", _pem(self._signed(builder, usage)), 0o644)
            made += [f"{role}-key.pem", f"{role}.pem"]
        return made

    def _still_good(self, role: str, general: list[x509.GeneralName], now_us: int) -> bool:
        try:
            certificate, key = _certificate(self.folder / f"{role}.pem"), _key(self.folder / f"{role}-key.pem")
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            certificate.verify_directly_issued_by(self._certificate)
        except (ConfigError, InvalidSignature, ValueError, x509.ExtensionNotFound):
            return False
        ends = min(certificate.not_valid_after_utc, self._certificate.not_valid_after_utc)
        lasts = ends - _utc(now_us) > RENEW_BEFORE or ends == self._certificate.not_valid_after_utc
        # Made while our clock was ahead: until that day everybody else refuses it. (Or our clock is far behind now: left alone.)
        now = _utc(now_us)
        begun = certificate.not_valid_before_utc <= now or now < self._certificate.not_valid_before_utc
        return certificate.public_key() == key.public_key() and set(names) == set(general) and lasts and begun

    def _leaf(
        self, subject: x509.Name, key: NodeKey, serial: int, not_before: dt.datetime, not_after: dt.datetime,
        names: list[x509.GeneralName],
    ) -> x509.CertificateBuilder:  # fmt: skip
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(self._key_identifier(), critical=False)
        )

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        own = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)

    def _signed(self, builder: x509.CertificateBuilder, purpose: x509.ObjectIdentifier) -> x509.Certificate:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        return builder.sign(self._key, hashes.SHA256(), ecdsa_deterministic=True)


def init(folder: Path, names: Sequence[str], now_us: int) -> list[str]:
    """Makes the folder (mode 0700) and what is missing in it. Returns the file names that were made.

    An authority or a signing key that stands is never replaced: every node goes by it. ConfigError where half of it is missing.
    """
    made: list[str] = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _guarded(folder)
        _must_be_whole(folder)
        # In this order: what stands before the authority's certificate can only be lost, once that is there.
        if not (folder / SIGNING_KEY).exists():
            Signer.make(folder / SIGNING_KEY)
            made.append(SIGNING_KEY)
        if not (folder / CA).exists():
            _make_ca(folder, now_us)
            made += [CA_KEY, CA]
        return made + Authority.read(folder).renew_own(names, now_us)
    except OSError as error:
        raise ConfigError(f"nodes.folder: {error.filename or folder} can't be written: {error.strerror}") from error


def public_key_of(csr_pem: str) -> NodeKey:
    """The one thing that is taken of a certificate request (PKCS #10): its public key. Unsuitable when it is not P-256 or
    Ed25519, or when who asks does not hold the private half."""
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        signed, key = request.is_signature_valid, request.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.InvalidVersion) as error:
        raise Unsuitable(f"the certificate request can't be read: {error}"[:200]) from None
    if isinstance(key, ec.EllipticCurvePublicKey):
        suits = isinstance(key.curve, ec.SECP256R1)
    else:
        suits = isinstance(key, Ed25519PublicKey)
    if not suits or not isinstance(key, ec.EllipticCurvePublicKey | Ed25519PublicKey):
        raise Unsuitable("the certificate request has a key that is neither EC P-256 nor Ed25519")
    if not signed:
        raise Unsuitable("the certificate request is not signed by its own key")
    return key


def write_whole(path: Path, data: bytes, mode: int) -> None:
    """Writes a file so that others see the old or the new one, whole, also after a power cut."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the umask says: a broker of another user reads some of them
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def ends_us(path: Path) -> int:
    """When the certificate in a file ends. ConfigError when there is none."""
    return _us(_certificate(path).not_valid_after_utc)


def _make_ca(folder: Path, now_us: int) -> None:
    key, now = ec.generate_private_key(ec.SECP256R1()), _utc(now_us)
    # Two towns' authorities must not have one name: a client that trusts both goes by it.
    number = os.urandom(4).hex()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"satomori authority {number}")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_whole(folder / CA_KEY, _key_pem(key), 0o600)
    write_whole(folder / CA, _pem(certificate), 0o644)


def _guarded(folder: Path) -> None:
    """ConfigError when the folder is not there, or others than its owner and group can look or write into it."""
    try:
        mode = folder.stat().st_mode
    except OSError as error:
        raise ConfigError(
            f"nodes.folder: {folder} can't be read: {error.strerror}. Run: satomori-gateway authority init gateway.toml"
        ) from error
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise ConfigError(
            f"nodes.folder: {folder} has mode {stat.S_IMODE(mode):04o}, so other users of this machine can get at the "
            f"authority. Run: chmod 700 {folder} (750 where the broker runs as another user of its group)"
        )


def _must_be_whole(folder: Path) -> None:
    """ConfigError where a part of the authority is lost: nodes go by it, and a new one would be another."""
    ca, ca_key, signing_key = ((folder / name).exists() for name in (CA, CA_KEY, SIGNING_KEY))
    if (ca or ca_key) and not (ca and ca_key and signing_key):
        there, gone = (CA_KEY, CA) if not ca else (CA, CA_KEY if not ca_key else SIGNING_KEY)
        raise ConfigError(
            f"nodes.folder: {folder} holds {there} but not {gone}. Restore it from a backup; only if no node was ever "
            f"claimed here, remove {there} and run: satomori-gateway authority init gateway.toml"
        )


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"nodes.folder: {path} can't be read: {error.strerror}. Run: satomori-gateway authority init gateway.toml"
        ) from error
    except ValueError as error:
        raise ConfigError(f"nodes.folder: {path} is no certificate in PEM: {error}") from error


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise ConfigError(
            f"nodes.folder: {path} can't be read: {error.strerror}. Run: satomori-gateway authority init gateway.toml"
        ) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"nodes.folder: {path} is no private key in PEM: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"nodes.folder: {path} holds a key that is not EC")
    return key


def _general(names: Sequence[str]) -> list[x509.GeneralName]:
    general: list[x509.GeneralName] = []
    for name in names:
        try:
            general.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            general.append(x509.DNSName(name))
    return general


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _utc(us: int) -> dt.datetime:
    """To the second, as certificates write it."""
    return dt.datetime.fromtimestamp(us // 1_000_000, dt.UTC)


def _us(at: dt.datetime) -> int:
    return int(at.timestamp()) * 1_000_000
