"""A code on a box becomes an identity: once, for who holds it, also over a link that loses answers."""

import base64
import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert

from edge.contract.names import is_name
from edge.contract.remote import ClaimAnswer, ClaimRequest, Desired, Identity, Reported, claim_id, claim_mac, normal_code
from gateway.nodes import claims
from gateway.nodes.claims import NameTaken, Refused
from gateway.nodes.desired import ask, commit_reports
from gateway.state import tables
from tests.gateway.nodes.boxes import DAY_US, HOUR_US, MINUTE_US, Box, Town, csr_of, town

OTHER_CODE = "0" * 16


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Town]:
    with town(tmp_path) as made:
        yield made


def refused(here: Town, code: str, box: Box, **changed: str) -> Refused:
    with pytest.raises(Refused) as caught:
        here.care.claims.answer(claim_id(code), box.claim(code, **changed))
    return caught.value


def live(here: Town, node: str = "kitayama-03") -> list[str]:
    return [row.serial for row in here.rows(tables.certificates) if row.node == node and row.revoked_us is None]


def test_the_code_gives_all_that_a_node_needs(here: Town) -> None:
    box = Box()
    identity = box.claimed(here, here.code())
    certificate = x509.load_pem_x509_certificate(identity.certificate.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert identity.node == "kitayama-03"
    assert certificate.public_key() == box.key.public_key()
    assert names.get_values_for_type(x509.DNSName) == ["kitayama-03"]
    assert identity.ca == (here.folder / "ca.pem").read_text()
    assert [base64.b64decode(key) for key in identity.keys] == [here.care.signer.public]
    assert (identity.broker_url, identity.gateway_url) == ("mqtts://localhost:8883", "https://localhost:8443")
    assert identity.device == {"node": {"type": "node_health"}}
    assert identity.now == here.now_us


def test_who_asks_does_not_choose_the_name(here: Town) -> None:
    box = Box()
    box.csr = csr_of(box.key, "gateway")
    assert box.claimed(here, here.code()).node == "kitayama-03"


def test_it_begins_with_what_was_last_asked_of_the_node(here: Town) -> None:
    for revision, pin in ((1, 17), (2, 27)):
        signed = here.care.signer.sign(
            Desired(node="kitayama-03", revision=revision, device={"trap-11": {"type": "reed_trap", "pin": pin}})
        )
        with here.state.write() as connection:
            connection.execute(
                insert(tables.desired).values(
                    node="kitayama-03", revision=revision, payload=signed.payload.decode(), sha256=signed.sha256,
                    created_us=here.now_us, created_by="tanaka",
                )
            )  # fmt: skip
    assert Box().claimed(here, here.code()).device == {"trap-11": {"type": "reed_trap", "pin": 27}}


def test_it_does_not_begin_with_what_the_node_could_not_run(here: Town) -> None:
    """A box that is claimed anew would never start with it."""
    Box().claimed(here, here.code())
    signer, good = here.care.signer, {"trap-11": {"type": "reed_trap", "pin": 17}}
    ask(here.state, signer, "kitayama-03", good, None, here.now_us, "tanaka")
    bad = ask(here.state, signer, "kitayama-03", {"trap-11": {"type": "reed_trap", "pin": 99}}, None, here.now_us, "tanaka")
    report = Reported.model_validate({"revision": bad, "outcome": "failed", "running": bad - 1, "reason": "pin: 99 is none"})
    with here.state.write() as connection:
        commit_reports(connection, [("kitayama-03", report, True)], here.now_us)
    assert Box().claimed(here, here.code()).device == good


def test_the_answer_proves_that_the_gateway_knows_the_code(here: Town) -> None:
    """Without it, somebody between could hand out an identity of another town, or another broker."""
    code, box = here.code(), Box()
    answer = here.care.claims.answer(claim_id(code), box.claim(code))
    forged = json.loads(answer.body) | {"broker_url": "mqtts://elsewhere.example"}
    with pytest.raises(AssertionError, match="somebody else answered"):
        box.identity(code, ClaimAnswer(body=json.dumps(forged), mac=answer.mac))


def test_a_code_is_used_once(here: Town) -> None:
    code = here.code()
    Box().claimed(here, code)
    late = refused(here, code, Box())
    assert late.status == 409
    assert len(live(here)) == 1


def test_a_lost_answer_is_given_again_the_same_for_a_quarter_of_an_hour(here: Town) -> None:
    code, box = here.code(), Box()
    first = box.claimed(here, code)
    here.now_us += 14 * MINUTE_US
    again = box.claimed(here, code)
    assert again == first.model_copy(update={"now": here.now_us})
    assert len(here.rows(tables.certificates)) == 1
    assert len(here.rows(tables.node_tokens)) == 1
    here.now_us += 2 * MINUTE_US
    assert refused(here, code, box).status == 403
    here.care.claims.forget()
    assert [row.code for row in here.rows(tables.claims)] == [None], "a code is forgotten after its use"


def test_a_repetition_with_another_nonce_or_key_is_none(here: Town) -> None:
    code, box = here.code(), Box()
    box.claimed(here, code)
    assert refused(here, code, Box(box.key)).status == 409
    assert refused(here, code, Box(nonce=box.nonce)).status == 409


def test_what_was_revoked_is_not_given_again(here: Town) -> None:
    code, box = here.code(), Box()
    box.claimed(here, code)
    with here.state.write() as connection:
        connection.execute(tables.certificates.update().values(revoked_us=here.now_us, revoked_why="stolen"))
    assert refused(here, code, box).status == 409


def test_an_expired_code_says_so_to_who_holds_it_and_to_nobody_else(here: Town) -> None:
    code, box = here.code(hours=1), Box()
    here.now_us += HOUR_US
    assert refused(here, code, box).status == 410
    assert "satomori-gateway node add" in str(refused(here, code, box))
    assert refused(here, code, box, mac="0" * 64).status == 403
    assert live(here) == []


def test_a_wrong_code_and_an_unknown_one_get_the_same_answer(here: Town) -> None:
    """So that nobody finds out which boxes wait. The same writes, too, for their time would tell."""
    code = here.code()
    known = refused(here, code, Box(), mac="0" * 64)
    unknown = refused(here, claim_id(OTHER_CODE) + code[4:], Box())
    assert (known.status, str(known)) == (unknown.status, str(unknown)) == (403, str(known))
    (guesses,) = [row.value for row in here.rows(tables.cursors) if row.name == claims.GUESSES]
    assert guesses == 2


def test_a_guess_that_no_code_was_never_made_for_an_unknown_id_opens_nothing(here: Town) -> None:
    assert refused(here, OTHER_CODE, Box()).status == 403


def test_who_guesses_keeps_nobody_with_the_right_code_from_using_it(here: Town) -> None:
    """Anybody on the network can be wrong as often as they like: a lock against them would be theirs to close."""
    code, other = here.code(), here.code("minamisawa")
    for number in range(100):
        assert refused(here, code, Box(), mac=f"{number:064x}").status in (403, 429)
    assert Box().claimed(here, code).node == "kitayama-03"
    assert Box().claimed(here, other).node == "minamisawa"


def test_wrong_codes_are_counted_and_cost_few_writes(here: Town) -> None:
    code = here.code()
    answers = [refused(here, code, Box(), mac="0" * 64) for _ in range(30)]
    assert [one.status for one in answers] == [403] * 20 + [429] * 10
    assert answers[-1].wait_s == 3
    assert [row.failures for row in here.rows(tables.claims)] == [20]
    here.now_us += 3_000_000
    assert refused(here, code, Box(), mac="0" * 64).status == 403


def test_a_clock_that_is_set_back_is_forgiven(here: Town) -> None:
    code = here.code()
    for _ in range(20):
        refused(here, code, Box(), mac="0" * 64)
    here.now_us -= DAY_US
    assert refused(here, code, Box(), mac="0" * 64).wait_s == 3


def test_a_new_code_ends_the_one_before_it(here: Town) -> None:
    first, second = here.code(), here.code()
    assert refused(here, first, Box()).status == 403
    assert Box().claimed(here, second).node == "kitayama-03"


def test_other_hardware_takes_a_nodes_place_only_when_it_is_there(here: Town) -> None:
    old = Box().claimed(here, here.code())
    code = here.code()
    assert len(live(here)) == 1, "a code that waits ends nothing"
    new = Box().claimed(here, code)
    old_serial, new_serial = (f"{x509.load_pem_x509_certificate(one.certificate.encode()).serial_number:x}" for one in (old, new))
    assert live(here) == [new_serial]
    assert old_serial in {f"{one.serial_number:x}" for one in x509.load_pem_x509_crl((here.folder / "crl.pem").read_bytes())}
    tokens = {row.sha256: row.revoked_us for row in here.rows(tables.node_tokens)}
    assert tokens[hashlib.sha256(old.token.encode()).hexdigest()] == here.now_us
    assert tokens[hashlib.sha256(new.token.encode()).hexdigest()] is None


def test_the_database_holds_no_token_and_soon_no_code(here: Town, tmp_path: Path) -> None:
    code = here.code()
    token = Box().claimed(here, code).token
    here.now_us += 20 * MINUTE_US
    here.care.claims.forget()
    texts = [str(tuple(row)) for table in tables.metadata.sorted_tables for row in here.rows(table)]
    assert not [text for text in texts if token in text or code in text]


def test_a_request_that_can_t_be_used_does_not_cost_the_code(here: Town) -> None:
    code, box = here.code(), Box()
    bad = Box()
    bad.csr = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
    answer = refused(here, code, bad)
    assert answer.status == 422
    assert str(answer).startswith("csr: ")
    assert box.claimed(here, code).node == "kitayama-03"


def test_an_ed25519_key_will_do(here: Town) -> None:
    code, box = here.code(), Box()
    box.csr = csr_of(Ed25519PrivateKey.generate())
    assert box.claimed(here, code).node == "kitayama-03"


@pytest.mark.parametrize(
    "name", ["gateway", "broker", "localhost", "satomori-gateway", "satomori-gateway-check", "Kitayama", "", "a b"]
)
def test_names_that_are_no_nodes(here: Town, name: str) -> None:
    with pytest.raises(NameTaken):
        here.code(name)
    assert here.rows(tables.claims) == []


def test_codes_are_typed_as_they_are_shown(here: Town) -> None:
    claim = claims.add(here.state, "kitayama-03", 72, here.now_us, "tanaka")
    assert [len(part) for part in claim.shown.split("-")] == [4, 4, 4, 4]
    assert normal_code(claim.shown.lower()) == claim.code
    assert claims.qr_text("https://gateway.example:8443", claim.code, "kitayama-03") == (
        f"satomori:claim?u=https%3A%2F%2Fgateway.example%3A8443&c={claim.code}&n=kitayama-03"
    ), "an installer's phone knows the box by it"


def test_an_id_is_free_again_a_month_after_its_code_was_over(here: Town) -> None:
    here.code(hours=1)
    here.now_us += 31 * DAY_US
    here.code("minamisawa")
    assert [row.node for row in here.rows(tables.claims)] == ["minamisawa"]


def test_revoking_ends_certificates_tokens_and_codes(here: Town) -> None:
    Box().claimed(here, here.code())
    code = here.code()
    assert claims.revoke(here.state, "kitayama-03", "stolen", here.now_us) == (1, 2)
    assert live(here) == []
    assert [row.revoked_us for row in here.rows(tables.node_tokens)] == [here.now_us]
    assert refused(here, code, Box()).status == 403
    assert claims.revoke(here.state, "kitayama-03", "again", here.now_us) == (0, 0)


# --- Between commit and answer ----------------------------------------------------------------------


def _dies_before_it_answers(folder: Path, now_us: int, code: str, request: ClaimRequest) -> None:
    """In a process of its own: the transaction is done, the brokers are about to be told, the power goes."""
    with town(folder, now_us) as made:
        made.care.brokers.tell = lambda **_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        made.care.claims.answer(claim_id(code), request)


@pytest.mark.sqlite_only("a process of its own opens the file")
def test_a_gateway_killed_between_commit_and_answer_burns_no_code(tmp_path: Path) -> None:
    box = Box()
    with town(tmp_path) as before:
        code, now_us = before.code(), before.now_us
    arguments = (tmp_path, now_us, code, box.claim(code))
    child = multiprocessing.get_context("spawn").Process(target=_dies_before_it_answers, args=arguments)
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    with town(tmp_path, now_us + MINUTE_US) as after:
        (row,) = after.rows(tables.certificates)
        assert row.serial in (after.folder / "nats-nodes.conf").read_text(), "the broker knows it before the node comes again"
        identity: Identity = box.claimed(after, code)
        assert f"{x509.load_pem_x509_certificate(identity.certificate.encode()).serial_number:x}" == row.serial
        assert is_name(identity.node)


def test_vectors_of_a_claim_hold_for_this_gateway(here: Town) -> None:
    code, box = here.code(), Box()
    answer = here.care.claims.answer(
        claim_id(code), box.claim(code.lower(), mac=claim_mac(code.lower(), "request", box.csr, box.nonce))
    )
    assert answer.mac == claim_mac(code, "answer", answer.body, box.nonce)
