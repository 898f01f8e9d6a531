"""A certificate gets its successor: also when it ran out in a shed, never when it was revoked, and never another's."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.contract.remote import RenewAnswer, RenewRequest, renewal_text
from edge.signature import Distrusted, believed
from gateway.nodes import claims
from gateway.nodes.claims import Refused
from gateway.state import tables
from tests.gateway.nodes.boxes import DAY_US, HOUR_US, MINUTE_US, Box, Town, broker_tls, csr_of, handshake, node_tls, town


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Town]:
    with town(tmp_path) as made:
        yield made


def refused(here: Town, request: RenewRequest) -> Refused:
    with pytest.raises(Refused) as caught:
        here.care.renewals.answer(request)
    return caught.value


def serial(certificate: str) -> str:
    return f"{x509.load_pem_x509_certificate(certificate.encode()).serial_number:x}"


def live(here: Town) -> set[str]:
    return {row.serial for row in here.rows(tables.certificates) if row.revoked_us is None}


def test_a_certificate_gets_a_successor_of_its_own_name(here: Town, tmp_path: Path) -> None:
    box = Box()
    identity = box.claimed(here, here.code())
    here.now_us += 240 * DAY_US
    answer = box.renewed(here, identity)
    made = x509.load_pem_x509_certificate(answer.certificate.encode())
    assert (made.not_valid_after_utc - made.not_valid_before_utc).days == 365
    assert int(made.not_valid_after_utc.timestamp()) * 1_000_000 > here.now_us + 364 * DAY_US
    assert answer.node == "kitayama-03"
    assert answer.ca == identity.ca
    assert live(here) == {serial(identity.certificate), serial(answer.certificate)}


def test_a_successor_is_taken_by_a_broker(here: Town, tmp_path: Path) -> None:
    box = Box()
    identity = box.claimed(here, here.code())
    here.now_us += 2 * HOUR_US
    answer = box.renewed(here, identity)
    here.now_us -= 2 * HOUR_US  # a real handshake goes by the real clock, and the successor is not good yet
    early = x509.load_pem_x509_certificate(answer.certificate.encode()).not_valid_before_utc
    assert int(early.timestamp()) * 1_000_000 < here.now_us + 2 * HOUR_US
    files = box.files(tmp_path, identity.certificate)
    assert handshake(broker_tls(here.folder), node_tls(here.folder, *files)) == "kitayama-03"


def test_a_season_in_a_shed_ends_nothing(here: Town) -> None:
    box = Box()
    identity = box.claimed(here, here.code())
    here.now_us += 3 * 365 * DAY_US
    answer = box.renewed(here, identity)
    assert x509.load_pem_x509_certificate(answer.certificate.encode()).not_valid_after_utc.timestamp() * 1e6 > here.now_us


def test_a_node_may_take_a_new_key(here: Town) -> None:
    box, new = Box(), Box()
    identity = box.claimed(here, here.code())
    here.now_us += 2 * HOUR_US
    payload = here.care.renewals.answer(box.renewal(identity.certificate, csr=new.csr))
    answer, _ = believed(payload, [here.care.signer.public], RenewAnswer, "kitayama-03")
    assert x509.load_pem_x509_certificate(answer.certificate.encode()).public_key() == new.key.public_key()


def test_a_node_with_an_ed25519_key_renews_itself_too(here: Town) -> None:
    key, code, box = Ed25519PrivateKey.generate(), here.code(), Box()
    box.csr = csr_of(key)
    identity = box.claimed(here, code)
    here.now_us += 2 * HOUR_US
    signature = base64.b64encode(key.sign(renewal_text(box.csr))).decode()
    request = RenewRequest(certificate=identity.certificate, csr=box.csr, signature=signature)
    assert believed(here.care.renewals.answer(request), [here.care.signer.public], RenewAnswer, "kitayama-03")
    other = base64.b64encode(Ed25519PrivateKey.generate().sign(renewal_text(box.csr))).decode()
    assert refused(here, request.model_copy(update={"signature": other})).status == 403


def test_the_answer_is_signed_for_this_node(here: Town) -> None:
    box = Box()
    identity = box.claimed(here, here.code())
    here.now_us += 2 * HOUR_US
    payload = here.care.renewals.answer(box.renewal(identity.certificate))
    with pytest.raises(Distrusted):
        believed(payload, [here.care.signer.public], RenewAnswer, "minamisawa")
    with pytest.raises(Distrusted):
        believed(payload.replace(b"kitayama-03", b"kitayama-04"), [here.care.signer.public], RenewAnswer, "kitayama-04")


def test_a_revoked_certificate_gets_nothing(here: Town) -> None:
    box = Box()
    identity = box.claimed(here, here.code())
    claims.revoke(here.state, "kitayama-03", "stolen", here.now_us)
    here.now_us += 2 * HOUR_US
    answer = refused(here, box.renewal(identity.certificate))
    assert (answer.status, "stolen" in str(answer)) == (403, True)
    assert live(here) == set()


def test_hardware_that_was_replaced_gets_nothing(here: Town) -> None:
    old, new = Box(), Box()
    identity = old.claimed(here, here.code())
    new.claimed(here, here.code())
    here.now_us += 2 * HOUR_US
    assert refused(here, old.renewal(identity.certificate)).status == 403


def test_who_does_not_hold_the_key_gets_nothing(here: Town) -> None:
    """A certificate travels in the open in every handshake of TLS 1.2."""
    box, thief = Box(), Box()
    identity = box.claimed(here, here.code())
    here.now_us += 2 * HOUR_US
    assert refused(here, box.renewal(identity.certificate, signed_by=thief)).status == 403
    assert refused(here, thief.renewal(identity.certificate)).status == 403


def test_a_signature_over_one_request_is_none_over_another(here: Town) -> None:
    box, thief = Box(), Box()
    identity = box.claimed(here, here.code())
    here.now_us += 2 * HOUR_US
    own = box.renewal(identity.certificate)
    assert refused(here, own.model_copy(update={"csr": thief.csr})).status == 403


def test_nodes_can_t_have_each_others_names(here: Town) -> None:
    one, other = Box(), Box()
    mine, theirs = one.claimed(here, here.code()), other.claimed(here, here.code("minamisawa"))
    here.now_us += 2 * HOUR_US
    assert refused(here, one.renewal(theirs.certificate)).status == 403
    one.csr = csr_of(one.key, "minamisawa")
    assert one.renewed(here, mine).node == "kitayama-03"


def test_another_towns_certificate_gets_nothing(here: Town, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    box = Box()
    with town(tmp_path / "other") as other:
        identity = box.claimed(other, other.code())
    answer = refused(here, box.renewal(identity.certificate))
    assert (answer.status, "claim it anew" in str(answer)) == (403, True)


@pytest.mark.parametrize("role", ["gateway", "broker", "listener"])
def test_the_gateways_own_certificates_are_no_nodes(here: Town, role: str) -> None:
    key = load_pem_private_key((here.folder / f"{role}-key.pem").read_bytes(), None)
    box = Box(key)  # type: ignore[arg-type]
    assert refused(here, box.renewal((here.folder / f"{role}.pem").read_text())).status == 403


def test_once_an_hour(here: Town) -> None:
    box = Box()
    identity = box.claimed(here, here.code())
    here.now_us += 20 * MINUTE_US
    early = refused(here, box.renewal(identity.certificate))
    assert (early.status, early.wait_s) == (429, 40 * 60)
    here.now_us += 40 * MINUTE_US
    assert box.renewed(here, identity).node == "kitayama-03"
    other = Box()
    assert refused(here, box.renewal(identity.certificate, csr=other.csr)).status == 429


def test_a_lost_answer_is_given_again(here: Town) -> None:
    box = Box()
    identity = box.claimed(here, here.code())
    here.now_us += 2 * HOUR_US
    first = box.renewed(here, identity)
    here.now_us += 30 * MINUTE_US
    assert box.renewed(here, identity) == first
    assert len(live(here)) == 2
    here.now_us += 400 * DAY_US
    late = box.renewed(here, identity)
    assert late.certificate != first.certificate, "not one that has run out meanwhile"
    assert live(here) == {serial(identity.certificate), serial(late.certificate)}


def test_the_successors_own_renewal_ends_the_first(here: Town) -> None:
    box = Box()
    first = box.claimed(here, here.code())
    here.now_us += 200 * DAY_US
    second = box.renewed(here, first)
    here.now_us += 200 * DAY_US
    third = box.renewed(here, first.model_copy(update={"certificate": second.certificate}))
    assert live(here) == {serial(second.certificate), serial(third.certificate)}
    assert refused(here, box.renewal(first.certificate)).status == 403


def test_who_is_refused_keeps_nobody_else_from_renewing(here: Town) -> None:
    """There is nothing to guess here, and a lock could be closed by anybody who can reach the listener."""
    box, thief = Box(), Box()
    identity = box.claimed(here, here.code())
    here.now_us += 2 * HOUR_US
    for _ in range(100):
        assert refused(here, thief.renewal(identity.certificate)).status == 403
    assert box.renewed(here, identity).node == "kitayama-03"


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # cryptography's own word on one kind of damage
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(field=st.sampled_from(["certificate", "csr", "signature"]), at=st.integers(0, 2000), byte=st.integers(32, 126))
def test_no_damaged_renewal_is_answered(renewable: tuple[Town, RenewRequest], field: str, at: int, byte: int) -> None:
    here, request = renewable
    text = getattr(request, field)
    body = text.strip().split("\n") if "\n" in text else [text]
    line = min(1 + at % 3, len(body) - 1)
    place = at % len(body[line])
    if body[line][place] == chr(byte):
        return
    body[line] = body[line][:place] + chr(byte) + body[line][place + 1 :]
    damaged = request.model_copy(update={field: "\n".join(body)})
    if means(damaged) == means(request):
        return  # base64 has more than one way to say the same
    here.now_us += 1_000_000
    with pytest.raises(Refused) as caught:
        here.care.renewals.answer(damaged)
    assert caught.value.status in (403, 422)


def means(request: RenewRequest) -> object:
    try:
        certificate = x509.load_pem_x509_certificate(request.certificate.encode())
        return certificate, request.csr, base64.b64decode(request.signature, validate=True)
    except (ValueError, x509.InvalidVersion):
        return None


@pytest.fixture
def renewable(here: Town) -> tuple[Town, RenewRequest]:
    box = Box()
    identity = box.claimed(here, here.code())
    here.now_us += 2 * HOUR_US
    return here, box.renewal(identity.certificate)


def test_what_is_no_certificate_says_so(here: Town) -> None:
    request = RenewRequest(
        certificate="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        csr=Box().csr,
        signature=base64.b64encode(b"x").decode(),
    )
    assert refused(here, request).status == 422
