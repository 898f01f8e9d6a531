"""A town's authority for tests: certificates that are good, expired, or of somebody else."""

import datetime as dt
import ipaddress
from datetime import UTC
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = dt.timedelta(days=1)


def now() -> dt.datetime:
    return dt.datetime.now(UTC)


def pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


class Authority:
    """Signs what it is asked to."""

    def __init__(self, name: str = "Town of Kitayama") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.pem = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now() - 3650 * DAY)
            .not_valid_after(now() + 3650 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
            .public_bytes(Encoding.PEM)
            .decode()
        )

    def issue(
        self,
        name: str,
        public_key: ec.EllipticCurvePublicKey,
        begins: dt.timedelta = -DAY,
        ends: dt.timedelta = 365 * DAY,
    ) -> str:
        """For a server on loopback and a node alike; `begins` and `ends` count from now."""
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now() + begins)
            .not_valid_after(now() + ends)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
            )
            .sign(self.key, hashes.SHA256())
            .public_bytes(Encoding.PEM)
            .decode()
        )

    def write_pair(
        self, folder: Path, name: str, begins: dt.timedelta = -DAY, ends: dt.timedelta = 365 * DAY
    ) -> tuple[Path, Path]:
        """`<name>.pem` and `<name>-key.pem` in the folder."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate, key_file = folder / f"{name}.pem", folder / f"{name}-key.pem"
        certificate.write_text(self.issue(name, key.public_key(), begins, ends))
        key_file.write_text(pem(key))
        return certificate, key_file

    def write(self, folder: Path, name: str = "ca.pem") -> Path:
        path = folder / name
        path.write_text(self.pem)
        return path
