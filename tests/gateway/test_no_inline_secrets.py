"""No secret stands in a configuration: whoever may read how a town is set up may not act as it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from edge.config import EdgeConfig
from gateway.config import GatewayConfig

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
