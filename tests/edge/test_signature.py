"""Whom a node believes: the gateway that claimed it, about itself, and nobody else."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.remote import Command, Desired
from edge.signature import Distrusted, believed, canonical, key_id
from gateway.nodes.signing import Signer

NODE = "kitayama-03"
DESIRED = Desired(node=NODE, revision=1, device={"trap-11": {"type": "reed_trap", "pin": 17, "なまえ": "北尾根"}})


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer.make(tmp_path_factory.mktemp("keys") / "signing.pem")


def test_what_the_gateway_signed_is_believed(signer: Signer) -> None:
    statement = signer.sign(DESIRED)
    assert believed(statement.payload, [signer.public], Desired, NODE) == (DESIRED, statement.sha256)


def test_it_may_have_more_than_one_key(signer: Signer, tmp_path: Path) -> None:
    """While one takes the place of another."""
    new = Signer.make(tmp_path / "new.pem")
    assert believed(signer.sign(DESIRED).payload, [new.public, signer.public], Desired, NODE)[0] == DESIRED


def test_the_order_of_fields_and_white_space_do_not_matter(signer: Signer) -> None:
    said = json.loads(signer.sign(DESIRED).payload)
    said["statement"] = dict(reversed(said["statement"].items()))
    assert believed(json.dumps(said, indent=2).encode(), [signer.public], Desired, NODE)[0] == DESIRED


@pytest.mark.parametrize("field", ["statement.revision", "statement.device.trap-11.pin", "signature", "key"])
def test_whatever_is_changed_is_noticed(field: str, signer: Signer) -> None:
    said = json.loads(signer.sign(DESIRED).payload)
    table: Any = said
    *path, last = field.split(".")
    for name in path:
        table = table[name]
    table[last] = table[last] + 1 if isinstance(table[last], int) else table[last][::-1]
    with pytest.raises(Distrusted):
        believed(json.dumps(said).encode(), [signer.public], Desired, NODE)


def test_another_gateways_words_are_not_believed(signer: Signer, tmp_path: Path) -> None:
    other = Signer.make(tmp_path / "other.pem")
    with pytest.raises(Distrusted, match="was it claimed by another gateway"):
        believed(other.sign(DESIRED).payload, [signer.public], Desired, NODE)


def test_nor_with_our_keys_name_on_them(signer: Signer, tmp_path: Path) -> None:
    said = json.loads(Signer.make(tmp_path / "other.pem").sign(DESIRED).payload)
    with pytest.raises(Distrusted, match="changed on its way, or is forged"):
        believed(json.dumps(said | {"key": key_id(signer.public)}).encode(), [signer.public], Desired, NODE)


def test_words_for_another_node_or_another_purpose_are_of_no_use_here(signer: Signer) -> None:
    with pytest.raises(Distrusted, match="for another node"):
        believed(signer.sign(DESIRED).payload, [signer.public], Desired, "minamikawa-01")
    with pytest.raises(Distrusted, match="can't be read by this version"):
        believed(signer.sign(DESIRED).payload, [signer.public], Command, NODE)


@settings(max_examples=100)
@given(
    payload=st.binary(max_size=300)
    | st.sampled_from([b"[" * 100_000, b'{"v":1,"statement":{"a":NaN},"key":"0123456789abcdef","signature":""}'])
)
def test_no_bytes_are_believed_and_none_do_harm(payload: bytes) -> None:
    with pytest.raises(Distrusted):
        believed(payload, [b"k" * 32], Desired, NODE)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=80)
@given(statement=st.dictionaries(st.text(max_size=4), json_values, max_size=3))
def test_a_statement_has_one_text_however_it_travelled(statement: dict[str, Any]) -> None:
    again = json.loads(json.dumps(dict(reversed(statement.items())), ensure_ascii=True))
    assert canonical(again) == canonical(statement)
    assert json.loads(canonical(statement)) == statement


def test_the_rfcs_own_example() -> None:
    """RFC 8785, 3.2.2 and 3.2.3, without the numbers that no statement of ours has."""
    said = json.loads(r'{"string":"\u20ac$\u000F\u000aA\u0027\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}')
    expected = base64.b64decode("eyJsaXRlcmFscyI6W251bGwsdHJ1ZSxmYWxzZV0sInN0cmluZyI6IuKCrCRcdTAwMGZcbkEnQlwiXFxcXFwiLyJ9")
    assert canonical(said) == expected
