"""No secret stands in a configuration: whoever may read how a town is set up may not act as it."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from pydantic import TypeAdapter

from edge.config import EdgeConfig
from gateway.api.tokens import read_tokens
from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from gateway.ingest import GatewayBrokerConfig
from gateway.notify.line import Line, LineConfig
from gateway.notify.links import open_link_key
from gateway.notify.mail import Mail, MailConfig
from gateway.notify.push import open_vapid
from gateway.notify.twilio import TwilioConfig, read_auth_token
from gateway.notify.webhook import Webhook, WebhookConfig
from gateway.secret_files import LARGEST, read_secret_text
from gateway.session import credentials
from gateway.store.influxdb import InfluxdbStore, InfluxdbStoreConfig

SECRET = re.compile(r"secret|token|password|passphrase|private|credential|(^|_)key$|(^|_)pin$|api_key", re.IGNORECASE)
NONE = {
    **{f"{name}_pin": "a number on the Pi's header" for name in ("tilt", "visit", "tamper", "vibration")},
    "pin": "a number on the Pi's header",
    "key": "a name in another program's document",
    "private": "whether a network is",
    "allow_private": "whether it may be in a private network",
    "has_key": "whether the node has one",
}
"""Settings that sound like secrets and are none."""


def settings(schema: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """(name, where) of each setting of a JSON schema."""
    if isinstance(schema, dict):
        properties = schema.get("properties")
        for name, one in (properties if isinstance(properties, dict) else {}).items():
            yield name, f"{at}.{name}"
            yield from settings(one, f"{at}.{name}")
        for name, one in schema.items():
            if name != "properties":
                yield from settings(one, at)
    elif isinstance(schema, list):
        for one in schema:
            yield from settings(one, at)


@pytest.mark.parametrize("model", [GatewayConfig, EdgeConfig])
def test_a_setting_names_the_file_of_a_secret_and_never_the_secret(model: type[Any]) -> None:
    found = list(settings(TypeAdapter(model).json_schema()))
    assert any(name.endswith("_file") for name, _ in found)
    assert {where for name, where in found if SECRET.search(name) and not name.endswith("_file") and name not in NONE} == set()


# --- The files --------------------------------------------------------------------------------------


def line(path: Path) -> object:
    return Line(LineConfig(channel_secret_file=path, access_token_file=path), Mock(), lambda: 0)


def twilio(path: Path) -> object:
    said = {"account_sid": "AC" + "0" * 32, "auth_token_file": path, "from": "+815000000001"}
    return read_auth_token(TwilioConfig.model_validate(said))


def mail(path: Path) -> object:
    said = {"host": "mail.example.jp", "from": "satomori@example.jp", "username": "satomori", "password_file": path, "tls": "tls"}
    return Mail(MailConfig.model_validate(said), lambda: 0)


def webhook(path: Path) -> object:
    return Webhook(
        "farmers", WebhookConfig.model_validate({"type": "webhook", "url": "https://chat.example/", "secret_file": path})
    )


def influxdb(path: Path) -> object:
    said = {"type": "influxdb", "url": "http://127.0.0.1:1", "org": "o", "bucket": "b", "token_file": path}
    return InfluxdbStore(InfluxdbStoreConfig.model_validate(said))


def broker(path: Path) -> object:
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    said = {"url": "mqtt://127.0.0.1", "username": "gateway", "password_file": path}
    credentials(client, GatewayBrokerConfig.model_validate(said), tls=False)
    return None


def broker_key(path: Path) -> object:
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    said = {"url": "mqtts://127.0.0.1", "certificate_file": path, "key_file": path}
    credentials(client, GatewayBrokerConfig.model_validate(said), tls=True)
    return None


READERS = [line, twilio, mail, webhook, influxdb, broker, broker_key, read_tokens]
FOLDERS: dict[str, Callable[[Path], object]] = {
    "link.key": open_link_key,
    "vapid.pem": lambda folder: open_vapid(folder, "mailto:office@example.jp"),
}


@pytest.mark.parametrize("mode", [0o604, 0o640 | 0o001, 0o620, 0o644])
@pytest.mark.parametrize("reads", READERS, ids=lambda one: one.__name__)
def test_a_secret_that_others_can_get_at_is_refused_whatever_it_is_for(
    reads: Callable[[Path], object], mode: int, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    path.write_text("tanaka operator a-token-that-is-long-enough\n")
    path.chmod(mode)
    with pytest.raises(ConfigError, match=rf"_file: .*has mode {mode:04o}.*chmod 600") as refused:
        reads(path)
    assert "long-enough" not in str(refused.value)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_key_that_the_gateway_made_is_refused_once_others_can_get_at_it(name: str, tmp_path: Path) -> None:
    FOLDERS[name](tmp_path)
    FOLDERS[name](tmp_path)
    (tmp_path / name).chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        FOLDERS[name](tmp_path)


def test_what_its_group_may_read_is_a_secret_still(tmp_path: Path) -> None:
    """As systemd and root give a file to a service."""
    path = tmp_path / "secret"
    path.write_text("a secret")
    for mode in (0o600, 0o400, 0o640, 0o440):
        path.chmod(mode)
        assert read_secret_text(path, "x") == "a secret"


@pytest.mark.parametrize("what", ["folder", "nothing", "pipe", "too much"])
def test_what_is_no_file_of_a_secret_is_said_at_once(what: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path, 0o600)
    elif what == "too much":
        path.write_bytes(bytes(LARGEST + 1))
        path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"^channel\.x: .*secret (can't be read|holds)"):
        read_secret_text(path, "channel.x")
