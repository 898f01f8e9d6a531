"""How a broker is written in configuration: what can't mean what it says is refused, with what to write instead."""

import pytest
from pydantic import ValidationError

from edge.contract.broker import Address, BrokerConfig, parse_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://gateway.local", Address("gateway.local", 1883, tls=False)),
        ("mqtts://gateway.local", Address("gateway.local", 8883, tls=True)),
        ("MQTTS://gateway.local:443/", Address("gateway.local", 443, tls=True)),
        ("mqtt://[::1]:1884", Address("::1", 1884, tls=False)),
    ],
)
def test_an_address_and_its_usual_port(url: str, address: Address) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "gateway.local",
        "http://a",
        "mqtt://",
        "mqtt://a:x",
        "mqtt://a:0",
        "mqtt://a:99999",
        "mqtt://a/b",
        "mqtt://a?b",
        "mqtt://[1",
    ],
)
def test_another_address_is_refused_and_the_right_form_is_said(url: str) -> None:
    with pytest.raises(ValueError, match=r"is not mqtt://host:port or mqtts://host:port"):
        parse_url(url)


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        ({"url": "mqtt://user:secret@a"}, "url", "username and password_file"),
        ({"url": "mqtt://a", "ca_file": "ca.pem"}, "ca_file", "write mqtts://"),
        ({"url": "mqtts://a", "key_file": "key.pem"}, "key_file", "set certificate_file too"),
        ({"url": "mqtt://a", "password_file": "pw"}, "password_file", "set username too"),
        ({"url": "mqtt://a", "keepalive_s": 0}, "keepalive_s", "greater than"),
        ({"url": "mqtt://a", "clientid": "x"}, "clientid", "Extra inputs"),
    ],
)
def test_a_fault_names_its_setting_and_never_the_secret(fields: dict[str, object], where: str, what: str) -> None:
    with pytest.raises(ValidationError) as refused:
        BrokerConfig.model_validate(fields)
    (fault,) = refused.value.errors()
    assert fault["loc"] == (where,)
    assert what in fault["msg"]
    assert "secret" not in fault["msg"]
