"""How a claim code is read, and the proof that it makes: vectors for whoever speaks this protocol from another program."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.remote import ALPHABET, claim_id, claim_mac, normal_code, renewal_text

CODE = "7K3M9QWX2B4DHT6V"
NONCE = "00112233445566ff"
MACS = {
    "request": "9748029f4866753e1e6b6dec67d4b578fe93b72a2ede435b885682e7a627f61d",
    "answer": "9d783f30586c9cb26a6f5fb5680f8888d48ed3389b156cae04f77d5c35e3f04e",
}


@pytest.mark.parametrize(
    "written",
    ["7K3M-9QWX-2B4D-HT6V", "7k3m9qwx2b4dht6v", " 7K3M 9QWX 2B4D HT6V ", "7K3M-9QWX2B4D-HT6V"],
)
def test_a_code_is_the_same_however_it_is_written(written: str) -> None:
    assert normal_code(written) == CODE


def test_letters_that_look_like_digits_are_the_digits() -> None:
    assert normal_code("iL0O-0000-0000-000o") == "1100000000000000"


@pytest.mark.parametrize("written", ["", "7K3M", "7K3M-9QWX-2B4D-HT6V-7", "UUUU-9QWX-2B4D-HT6V", "7K3M-9QWX-2B4D-HT6é", "٣" * 16])
def test_what_is_no_code_is_refused_with_what_to_look_at(written: str) -> None:
    with pytest.raises(ValueError, match="the code on the box"):
        normal_code(written)


@given(st.text(max_size=40))
def test_any_text_is_a_code_or_is_refused(text: str) -> None:
    try:
        code = normal_code(text)
    except ValueError:
        return
    assert len(code) == 16
    assert set(code) <= set(ALPHABET)
    assert normal_code(code) == code


def test_only_the_first_four_characters_are_told() -> None:
    assert claim_id("7k3m-9qwx-2b4d-ht6v") == "7K3M"


def test_the_vectors_of_the_proof() -> None:
    """HMAC-SHA256, key: the code's 16 characters; message: purpose, nonce and text, a line each."""
    assert claim_mac(CODE, "request", "csr", NONCE) == MACS["request"]
    assert claim_mac("7k3m-9qwx-2b4d-ht6v", "answer", "body", NONCE) == MACS["answer"]


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_proof_of_one_thing_is_none_of_another(one: str, other: str) -> None:
    mac = claim_mac(CODE, "request", one, NONCE)
    assert (mac == claim_mac(CODE, "request", other, NONCE)) == (one == other)
    assert mac != claim_mac(CODE, "answer", one, NONCE)
    assert mac != claim_mac(CODE, "request", one, "00112233445566fe")
    assert mac != claim_mac("7K3M9QWX2B4DHT6W", "request", one, NONCE)


def test_what_is_signed_for_a_renewal_is_nothing_else() -> None:
    assert renewal_text("csr") == b"satomori renewal\ncsr"
