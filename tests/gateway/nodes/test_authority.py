"""The town's own authority: real certificates in real TLS handshakes, and files that nobody else gets at."""

import base64
import datetime as dt
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.nodes import claims
from gateway.nodes.authority import Authority, Revoked, Unsuitable, init, public_key_of
from gateway.nodes.signing import Signer
from tests.gateway.nodes.boxes import DAY_US, NAMES, Box, broker_tls, csr_of, handshake, node_tls, town

NOW_US = 1_780_434_720_000_000
YEAR_US = 365 * DAY_US
MADE = dt.datetime.fromtimestamp(NOW_US / 1e6, dt.UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    folder = tmp_path / "authority"
    init(folder, NAMES, NOW_US)
    return folder


def certificate(folder: Path, role: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{role}.pem").read_bytes())


def test_nobody_else_of_the_machine_gets_at_the_keys(authority: Path) -> None:
    assert stat.S_IMODE(authority.stat().st_mode) == 0o700
    for key in ("ca-key.pem", "signing-key.pem", "listener-key.pem", "gateway-key.pem"):
        assert stat.S_IMODE((authority / key).stat().st_mode) == 0o600


def test_a_folder_that_others_can_look_into_is_refused(authority: Path) -> None:
    authority.chmod(0o755)
    with pytest.raises(ConfigError, match=r"mode 0755.*chmod 700"):
        Authority.read(authority)
    with pytest.raises(ConfigError, match="mode 0755"):
        init(authority, NAMES, NOW_US)


def test_made_again_nothing_is_replaced(authority: Path) -> None:
    before = {path.name: path.read_bytes() for path in authority.iterdir()}
    assert init(authority, NAMES, NOW_US + 30 * DAY_US) == []
    assert {path.name: path.read_bytes() for path in authority.iterdir()} == before


@pytest.mark.parametrize("gone", ["ca.pem", "ca-key.pem", "signing-key.pem"])
def test_half_an_authority_is_never_made_whole_by_a_new_one(authority: Path, gone: str) -> None:
    (authority / gone).unlink()
    with pytest.raises(ConfigError, match=rf"not {gone}\. Restore it from a backup"):
        init(authority, NAMES, NOW_US)
    assert not (authority / gone).exists()


def test_what_is_missing_of_the_rest_is_made(authority: Path) -> None:
    signing = Signer.read(authority / "signing-key.pem").public
    (authority / "broker-key.pem").unlink()
    assert init(authority, NAMES, NOW_US) == ["broker-key.pem", "broker.pem"]
    assert Signer.read(authority / "signing-key.pem").public == signing


def test_a_key_that_does_not_fit_is_noticed(authority: Path, tmp_path: Path) -> None:
    init(tmp_path / "other", NAMES, NOW_US)
    (authority / "ca-key.pem").write_bytes((tmp_path / "other" / "ca-key.pem").read_bytes())
    with pytest.raises(ConfigError, match="is not the key of"):
        Authority.read(authority)


def test_servers_certificates_are_renewed_in_time_and_with_their_names(authority: Path) -> None:
    last = certificate(authority, "broker").not_valid_after_utc
    assert init(authority, NAMES, NOW_US + YEAR_US) == []
    made = init(authority, NAMES, NOW_US + 2 * YEAR_US + 2 * DAY_US)
    assert made == [f"{role}{end}" for role in ("broker", "listener", "gateway") for end in ("-key.pem", ".pem")]
    assert certificate(authority, "broker").not_valid_after_utc > last
    assert init(authority, ["gateway.example"], NOW_US + 2 * YEAR_US + 3 * DAY_US) == made[:4]
    names = certificate(authority, "listener").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["gateway.example"]


def test_what_was_made_by_a_clock_that_ran_ahead_is_made_anew_once_it_is_right(authority: Path) -> None:
    """Nodes with a right clock refuse it, and with it the broker and the listener, until that day."""
    init(authority, ["gateway.example"], NOW_US + 2 * YEAR_US)
    assert certificate(authority, "broker").not_valid_before_utc > MADE + dt.timedelta(days=700)
    assert "broker.pem" in init(authority, ["gateway.example"], NOW_US + DAY_US)
    assert certificate(authority, "broker").not_valid_before_utc < MADE + dt.timedelta(days=2)


def test_a_clock_that_begins_in_1970_replaces_nothing(authority: Path) -> None:
    assert init(authority, NAMES, 3600 * 1_000_000) == []


def test_nothing_outlives_the_authority(authority: Path) -> None:
    made = Authority.read(authority)
    issued = made.issue("a", ec.generate_private_key(ec.SECP256R1()).public_key(), 1, NOW_US + 9 * YEAR_US, 3650)
    assert issued.not_after_us <= NOW_US + 3653 * DAY_US
    init(authority, NAMES, NOW_US + 9 * YEAR_US)
    assert init(authority, NAMES, NOW_US + 9 * YEAR_US) == [], "no certificate is made anew again and again in its last year"


def test_each_certificate_is_good_for_its_purpose_only(authority: Path) -> None:
    for role, purpose in (
        ("broker", ExtendedKeyUsageOID.SERVER_AUTH), ("listener", ExtendedKeyUsageOID.SERVER_AUTH),
        ("gateway", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):  # fmt: skip
        usage = certificate(authority, role).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [purpose]
    ca = certificate(authority, "ca").extensions
    assert ca.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(ca=True, path_length=0)


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256K1())],
    ids=["rsa", "p-384", "secp256k1"],
)
def test_other_keys_than_p256_and_ed25519_are_refused(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(Unsuitable, match="neither EC P-256 nor Ed25519"):
        public_key_of(csr_of(key))


def test_p256_and_ed25519_are_taken() -> None:
    for key in (ec.generate_private_key(ec.SECP256R1()), Ed25519PrivateKey.generate()):
        assert public_key_of(csr_of(key)) == key.public_key()


def test_a_request_for_a_key_that_the_asker_does_not_hold_is_refused() -> None:
    mine, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    honest = x509.load_pem_x509_csr(csr_of(mine).encode())

    def raw(key: ec.EllipticCurvePrivateKey) -> bytes:
        return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    forged = honest.public_bytes(Encoding.DER).replace(raw(mine), raw(other))
    pem = x509.load_der_x509_csr(forged).public_bytes(Encoding.PEM).decode()
    with pytest.raises(Unsuitable, match="not signed by its own key"):
        public_key_of(pem)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda body: body.hex()))
def test_no_text_breaks_the_reading_of_requests(text: str) -> None:
    for body in (text, f"-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"):
        with pytest.raises(Unsuitable):
            public_key_of(body)


@given(st.integers(0, 400), st.integers(0, 255))
@example(8, 127)  # the version, of which cryptography has an exception of its own
def test_no_damaged_request_is_taken_for_another_key(at: int, byte: int) -> None:
    der = bytearray(_DER)
    der[at % len(der)] = byte
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{base64.b64encode(der).decode()}\n-----END CERTIFICATE REQUEST-----\n"
    try:
        assert public_key_of(pem) == public_key_of(_PEM)
    except Unsuitable:
        return


_PEM = csr_of(ec.generate_private_key(ec.SECP256R1()))
_DER = x509.load_pem_x509_csr(_PEM.encode()).public_bytes(Encoding.DER)


# --- In real handshakes -----------------------------------------------------------------------------


def test_a_broker_takes_a_node_and_knows_its_name(tmp_path: Path) -> None:
    with town(tmp_path) as made:
        box = Box()
        files = box.files(tmp_path, box.claimed(made, made.code()).certificate)
        assert handshake(broker_tls(made.folder), node_tls(made.folder, *files)) == "kitayama-03"
        gateway = made.folder / "gateway.pem", made.folder / "gateway-key.pem"
        assert handshake(broker_tls(made.folder), node_tls(made.folder, *gateway)) == "gateway"


def test_a_broker_refuses_a_revoked_node_and_no_other(tmp_path: Path) -> None:
    with town(tmp_path) as made:
        gone, stays = Box(), Box()
        gone_files = gone.files(tmp_path, gone.claimed(made, made.code("kitayama-03")).certificate)
        stays_files = stays.files(tmp_path, stays.claimed(made, made.code("minamisawa")).certificate)
        claims.revoke(made.state, "kitayama-03", "stolen", made.now_us)
        made.care.brokers.tell()
        with pytest.raises(ssl.SSLError, match="revoked"):
            handshake(broker_tls(made.folder), node_tls(made.folder, *gone_files))
        assert handshake(broker_tls(made.folder), node_tls(made.folder, *stays_files)) == "minamisawa"


def test_a_node_is_no_server(tmp_path: Path) -> None:
    """Or a stolen node could play the broker of all others, under its own name."""
    with town(tmp_path) as made:
        box = Box()
        certificate, key = box.files(tmp_path, box.claimed(made, made.code()).certificate)
        server = broker_tls(made.folder)
        server.load_cert_chain(certificate, key)
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            handshake(server, node_tls(made.folder, certificate, key), host="kitayama-03")


def test_another_towns_node_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with town(tmp_path / "one") as one, town(tmp_path / "two") as two:
        box = Box()
        files = box.files(tmp_path, box.claimed(two, two.code()).certificate)
        with pytest.raises(ssl.SSLError):
            handshake(broker_tls(one.folder), node_tls(one.folder, *files))


def test_a_running_brokers_openssl_goes_by_the_newer_list(tmp_path: Path) -> None:
    """It keeps the older one in memory and compares their seconds; two revocations in one second must both count."""
    with town(tmp_path) as made:
        boxes = [Box() for _ in range(3)]
        files = [
            box.files(tmp_path, box.claimed(made, made.code(f"node-{number}")).certificate) for number, box in enumerate(boxes)
        ]
        broker = broker_tls(made.folder)
        for number, (certificate_file, key) in enumerate(files):
            claims.revoke(made.state, f"node-{number}", "stolen", made.now_us)
            made.care.brokers.tell()
            broker.load_verify_locations(made.folder / "crl.pem")
            with pytest.raises(ssl.SSLError, match="revoked"):
                handshake(broker, node_tls(made.folder, certificate_file, key))


def test_the_list_is_not_written_again_without_news(tmp_path: Path) -> None:
    with town(tmp_path) as made:
        Box().claimed(made, made.code())
        claims.revoke(made.state, "kitayama-03", "stolen", made.now_us)
        made.care.brokers.tell()
        before = (made.folder / "crl.pem").stat().st_mtime_ns
        made.now_us += 400 * DAY_US
        made.care.brokers.tell()
        assert (made.folder / "crl.pem").stat().st_mtime_ns == before


def test_a_damaged_list_is_made_anew(tmp_path: Path) -> None:
    with town(tmp_path) as made:
        (made.folder / "crl.pem").write_text("half a li")
        assert made.care.brokers.tell() is None
        x509.load_pem_x509_crl((made.folder / "crl.pem").read_bytes())


def test_the_list_names_who_and_when(tmp_path: Path) -> None:
    with town(tmp_path) as made:
        pem = made.care.authority.revocations([Revoked("abc123", made.now_us)], made.now_us, None)
        (entry,) = x509.load_pem_x509_crl(pem)
        assert f"{entry.serial_number:x}" == "abc123"
        assert int(entry.revocation_date_utc.timestamp()) == made.now_us // 1_000_000


def test_the_same_arguments_give_the_same_certificate(authority: Path) -> None:
    """So that an answer that was lost can be given again without being stored."""
    made, key = Authority.read(authority), ec.generate_private_key(ec.SECP256R1()).public_key()
    assert made.issue("a", key, 7, NOW_US, 365) == made.issue("a", key, 7, NOW_US, 365)


def test_ed448_is_not_a_kind_we_know() -> None:
    with pytest.raises(Unsuitable):
        public_key_of(csr_of_ed448())


def csr_of_ed448() -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(ed448.Ed448PrivateKey.generate(), None).public_bytes(Encoding.PEM).decode()
