"""What somebody reads who mistyped a setting: the path as it stands in their file, and a sentence of ours."""

import json
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edge.contract.faults import plain
from edge.contract.names import Name


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Trap(Part):
    """A trap."""

    type: Literal["trap"]
    pin: Annotated[int, Field(ge=0, le=27)]
    debounce_ms: Annotated[float, Field(gt=0)] = 5
    closed_means: Literal["set", "sprung"] = "set"
    zones: list[Annotated[int, Field(le=9)]] = []
    port: Annotated[str, Field(pattern="^/dev/[a-z]+$", description="A serial port.")] = "/dev/x"

    @model_validator(mode="after")
    def _has_sense(self) -> "Trap":
        if self.pin == 13:
            raise ValueError("pin: 13 brings bad luck")
        if self.pin == 14:
            raise ValueError("nobody: expects this")
        return self


class Camera(Part):
    type: Literal["camera"]
    on: bool = True


class Where(Part):
    url: str

    @field_validator("url")
    @classmethod
    def _usable(cls, url: str) -> str:
        if "//" not in url:
            raise ValueError(f"{url!r} is no address")
        return url


class File(Part):
    broker: Where | None = None
    device: dict[Name, Annotated[Trap | Camera, Field(discriminator="type")]] = Field(min_length=1)
    route: list[Name] = []

    @field_validator("route")
    @classmethod
    def _once(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("1: is there already")
        return names


def said(document: object, within: str = "") -> list[str]:
    with pytest.raises(ValidationError) as refused:
        File.model_validate(document)
    return plain(File, refused.value, within)


def of_trap(**settings: Any) -> list[str]:
    return said({"device": {"trap-11": {"type": "trap", "pin": 17, **settings}}})


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"pni": 3}, "device.trap-11.pni: there is no such setting; did you mean `pin`?"),
        (
            {"colour": 3},
            "device.trap-11.colour: there is no such setting; there are type, pin, debounce_ms, closed_means, zones, port",
        ),
        ({"pin": 99}, "device.trap-11.pin: must be a whole number from 0 to 27; it is 99"),
        ({"pin": "17a"}, 'device.trap-11.pin: must be a whole number from 0 to 27; it is "17a"'),
        ({"pin": 1.5}, "device.trap-11.pin: must be a whole number from 0 to 27; it is 1.5"),
        ({"pin": {}}, "device.trap-11.pin: must be a whole number from 0 to 27; it is a table"),
        ({"debounce_ms": 0}, "device.trap-11.debounce_ms: must be a number above 0; it is 0"),
        ({"zones": [1, 10]}, "device.trap-11.zones.1: must be a whole number of at most 9; it is 10"),
        ({"zones": 5}, "device.trap-11.zones: must be a list in [ ]; it is 5"),
        (
            {"closed_means": "sprng"},
            'device.trap-11.closed_means: there is no "sprng"; did you mean sprung? It is one of set, sprung',
        ),
        ({"port": "COM1"}, 'device.trap-11.port: "COM1" is not as it must be: A serial port.'),
        ({"pin": 13}, "device.trap-11.pin: 13 brings bad luck"),
        ({"pin": 14}, "device.trap-11: nobody: expects this"),
        ({"type": "trab"}, 'device.trap-11.type: there is no "trab"; did you mean trap? It is one of camera, trap'),
        ({"type": "camera", "pin": 3}, "device.trap-11.pin: there is no such setting; there are type, on"),
    ],
)
def test_a_device_that_is_not_right(settings: dict[str, Any], line: str) -> None:
    assert of_trap(**settings) == [line]


@pytest.mark.parametrize(
    ("document", "line"),
    [
        ({}, "device: is missing"),
        ({"device": {}}, "device: is empty; it needs at least 1 entry"),
        ({"device": []}, "device: must be a table of settings; it is a list"),
        ({"device": {"a": 5}}, "device.a: must be a table of settings; it is 5"),
        ({"device": {"a": {}}}, "device.a.type: is missing; it is one of camera, trap"),
        ({"device": {"a": {"type": "trap"}}}, "device.a.pin: is missing"),
        (
            {"device": {"Trap_11": {"type": "camera"}}},
            "device.Trap_11: \"Trap_11\" is no name; a name has 1 to 32 of a-z, 0-9 and '-'",
        ),
        ({"device": {"a": {"type": "camera", "on": "maybe"}}}, 'device.a.on: must be true or false; it is "maybe"'),
        ({"device": {"a": {"type": "camera", "o n": 1}}}, 'device.a."o n": there is no such setting; did you mean `on`?'),
        ({"device": {"a": {"type": "camera"}}, "broker": {"url": "x"}}, "broker.url: 'x' is no address"),
        ({"device": {"a": {"type": "camera"}}, "broker": {"url": 5}}, "broker.url: must be a text in quotes; it is 5"),
        ({"device": {"a": {"type": "camera"}}, "route": ["b", "b"]}, "route.1: is there already"),
        (7, "must be a table of settings; it is 7"),
    ],
)
def test_a_file_that_is_not_right(document: object, line: str) -> None:
    assert said(document) == [line]


def test_every_fault_has_its_line_beneath_the_place_the_document_lies_in() -> None:
    assert said({"broker": {}}, "town") == ["town.broker.url: is missing", "town.device: is missing"]


def test_a_line_stays_one_line_and_short_whatever_was_written() -> None:
    (line,) = of_trap(pin="9\n" * 500)
    assert len(line) < 150
    assert line.isprintable()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["trap", "camera"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["device", "type", "pin", "on", "zones", "a", "B", "url", "broker"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(document=st.dictionaries(st.sampled_from(["device", "broker", "route", "x"]), _json, max_size=3))
def test_whatever_is_written_each_fault_is_a_sentence_of_ours(document: dict[str, Any]) -> None:
    for line in said({**document, "unknown": 1}):
        assert line.isprintable(), json.dumps(line)
        for foreign in ("Input should", "Extra inputs", "Value error", "discriminator", "Field required", "valid "):
            assert foreign not in line
