"""Deployments: which device stands where, under the name its people use."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from edge.contract.names import Name


def _position(value: object) -> tuple[float, float]:
    """(latitude, longitude), degrees. ValueError that says how one is written, and whether the two stand the wrong way round."""
    how = "write latitude and longitude in degrees as [36.1046, 140.0846]"
    pair = value if isinstance(value, list | tuple) else ()
    numbers = [float(one) for one in pair if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(pair) != 2 or len(numbers) != 2:
        raise ValueError(f"{str(value)[:60]!r} is no position; {how}")
    latitude, longitude = numbers
    if abs(latitude) <= 90 and abs(longitude) <= 180:
        return latitude, longitude
    if abs(longitude) <= 90 and abs(latitude) <= 180:
        raise ValueError(
            f"[{latitude:g}, {longitude:g}] has no latitude from -90 to 90 first; is it [{longitude:g}, {latitude:g}]?"
        )
    raise ValueError(f"[{latitude:g}, {longitude:g}] is no place on earth; {how}")


def _seconds(text: object) -> object:
    from gateway.rules.duration import parse_duration  # here, because the rules beside it import this module

    return parse_duration(text)


Position = Annotated[tuple[float, float], BeforeValidator(_position)]
"""Latitude and longitude, degrees (WGS 84)."""


class Deployment(BaseModel):
    """One line of `deployment`: a device at a place."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: Name = Field(description="The node's name.")
    device: Name = Field(description="The device's name on that node.")
    kind: Name = Field(description="What it is there for: trap, camera, tags, flow, node.")
    place: str = Field(min_length=1, max_length=60, description="The place, as its people call it: 北尾根.")
    label: str = Field("", max_length=60, description="Which one there: 3番.")
    at: Position | None = Field(
        None, description="Latitude and longitude, degrees (WGS 84): [36.1046, 140.0846]. Who is asked to go gets a map."
    )
    groups: list[Name] = Field([], description="Groups that look after it: their farmers and hunters see it, and nobody else's.")
    keep_pictures: Annotated[int, BeforeValidator(_seconds), Field(ge=86_400, le=10_000 * 86_400)] | None = Field(
        None,
        description="How long its pictures are kept: longer than `[keep]`, those of animals; shorter, all. Absent: as `[keep]`.",
    )
    qr: int = Field(1, ge=1, le=9999, description="Count up when a trap's printed QR was lost: it opens nothing from then on.")


class Deployments:
    """All of them, by device."""

    def __init__(self, deployments: Iterable[Deployment]) -> None:
        self._by_device = {(one.node, one.device): one for one in deployments}

    def of(self, node: str, device: str) -> Deployment:
        """The device's deployment; one that says its technical names where nobody has entered any."""
        found = self._by_device.get((node, device))
        return found or Deployment.model_construct(node=node, device=device, kind="device", place=node, label=device)

    def keep_pictures(self) -> Mapping[tuple[str, str], int]:
        """Seconds, of each device (node, device) whose pictures have a time of their own."""
        own = {device: one.keep_pictures for device, one in self._by_device.items()}
        return {device: seconds for device, seconds in own.items() if seconds is not None}

    def __iter__(self) -> Iterator[Deployment]:
        return iter(self._by_device.values())
