"""The kinds of device this edge can read: one module each, listed here and nowhere else.

A driver module holds one pydantic config (`type: Literal[...]`) and one class:

    class ReedTrap:
        metrics: ClassVar[tuple[str, ...]]  # what its readings can be of
        def __init__(self, device: str, config: ReedTrapConfig, site: Site) -> None: ...  # opens nothing
        async def records(self) -> AsyncIterator[Record]: ...  # opens, reads, closes in finally

`records` raises DeviceError (with what to do about it) when the device can't be read; the agent reports that once,
waits and iterates anew. Bad bytes never raise: a decoder drops and counts them. The agent asks for the next record only
when it has taken the last one, and has committed it if it is an event (a summary of a tag, `tag_seen`, within a second).

A new kind is a new module, one line in DRIVERS and one in DeviceConfig.
"""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, Field

from edge.drivers.beam_pair import BeamPair, BeamPairConfig
from edge.drivers.ble_tags import BleTags, BleTagsConfig
from edge.drivers.lidar_pair import LidarPair, LidarPairConfig
from edge.drivers.lora_traps import LoraTraps, LoraTrapsConfig
from edge.drivers.node_health import NodeHealth, NodeHealthConfig
from edge.drivers.people_counter import PeopleCounter, PeopleCounterConfig
from edge.drivers.pir_camera import PirCamera, PirCameraConfig
from edge.drivers.reed_trap import ReedTrap, ReedTrapConfig
from edge.drivers.trail_camera import TrailCamera, TrailCameraConfig
from edge.records import Record, Site


class Driver(Protocol):
    """What every driver is, once it is made."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics its readings can be of."""
        ...

    def records(self) -> AsyncIterator[Record]:
        """What the device says, without end. An async generator: closing it closes the device."""
        ...


DRIVERS: tuple[tuple[type[BaseModel], Callable[[str, Any, Site], Driver]], ...] = (
    (BeamPairConfig, BeamPair),
    (BleTagsConfig, BleTags),
    (LidarPairConfig, LidarPair),
    (LoraTrapsConfig, LoraTraps),
    (NodeHealthConfig, NodeHealth),
    (PeopleCounterConfig, PeopleCounter),
    (PirCameraConfig, PirCamera),
    (ReedTrapConfig, ReedTrap),
    (TrailCameraConfig, TrailCamera),
)

DeviceConfig = Annotated[
    BeamPairConfig
    | BleTagsConfig
    | LidarPairConfig
    | LoraTrapsConfig
    | NodeHealthConfig
    | PeopleCounterConfig
    | PirCameraConfig
    | ReedTrapConfig
    | TrailCameraConfig,
    Field(discriminator="type"),
]
"""One `device.<name>` of the configuration; `type` says which. The same configs as in DRIVERS."""


def make_driver(device: str, config: BaseModel, site: Site) -> Driver:
    """The driver of a device, nothing opened yet. LookupError when its kind is not in DRIVERS."""
    for kind, driver in DRIVERS:
        if type(config) is kind:
            return driver(device, config, site)
    raise LookupError(f"{device}: no driver for {type(config).__name__}; is it in edge.drivers.DRIVERS?")
