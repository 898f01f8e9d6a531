"""What `[channel]` becomes: a channel for each, under the name that the ledger knows it by."""

from pathlib import Path
from typing import Any

import pytest

from gateway.contacts.config import PeopleConfig
from gateway.errors import ConfigError
from gateway.notify.channels import ChannelsConfig, build_channels
from gateway.notify.line import LineConfig
from gateway.notify.quota import Quota
from gateway.notify.webhook import WebhookConfig

PHONE: Any = WebhookConfig.model_validate({"type": "webhook", "url": "http://127.0.0.1:1/"})


def people(folder: Path) -> PeopleConfig:
    return PeopleConfig(public_url="https://gateway.example.jp", folder=folder / "people", office="office")


def no_quota(_: LineConfig) -> Quota:
    raise AssertionError("there is no LINE account here")


def test_each_is_there_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token-for-tests")
    (tmp_path / "token").chmod(0o600)
    config = ChannelsConfig.model_validate(
        {
            "push": {"contact": "mailto:office@example.jp"},
            "mail": {"host": "mail.example.jp", "from": "satomori@town.example.jp"},
            "twilio": {"account_sid": "AC" + "0" * 32, "auth_token_file": tmp_path / "token", "from": "+815000000001"},
        }
    )
    built = build_channels(config, {"phone": PHONE}, people(tmp_path), lambda: 0, no_quota)
    assert sorted(built.by_key) == ["contact.phone", "mail", "push", "sms", "voice"]
    assert built.vapid is not None
    assert all(not built.by_key[name].knows_repetition for name in ("mail", "push", "sms", "voice"))
    for channel in built.by_key.values():
        channel.close()


def test_without_any_there_are_the_webhooks_and_nothing_is_made_on_the_disk(tmp_path: Path) -> None:
    built = build_channels(ChannelsConfig(), {"phone": PHONE}, None, lambda: 0, no_quota)
    assert list(built.by_key) == ["contact.phone"]
    assert list(tmp_path.iterdir()) == []
    built.by_key["contact.phone"].close()


def test_a_channel_without_people_says_what_is_missing() -> None:
    config = ChannelsConfig.model_validate({"push": {"contact": "mailto:office@example.jp"}})
    with pytest.raises(ConfigError, match=r"needs \[people\]"):
        build_channels(config, {}, None, lambda: 0, no_quota)
