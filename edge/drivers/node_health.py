"""The node itself: heartbeat (its uptime), cpu_temperature, cpu_load, memory_free, disk_free."""

from collections.abc import AsyncIterator
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge.contract.metrics import METRICS
from edge.hardware import machine
from edge.records import Reading, Record, Site


class NodeHealthConfig(BaseModel):
    """`type = "node_health"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["node_health"]
    interval_s: Annotated[float, Field(ge=1, le=86_400, description="How often the node speaks of itself.")] = 60


class NodeHealth:
    """Reads the machine's own sensors. One that is missing, or says what can't be, is left out: never zero."""

    metrics: ClassVar[tuple[str, ...]] = ("heartbeat", "cpu_temperature", "cpu_load", "memory_free", "disk_free")

    def __init__(self, device: str, config: NodeHealthConfig, site: Site) -> None:
        self._device, self._config, self._site = device, config, site

    async def records(self) -> AsyncIterator[Record]:
        """All of it at once, then each interval."""
        clock = self._site.clock
        while True:
            now = clock.now()
            values = (
                ("heartbeat", now.mono_us / 1e6),
                ("cpu_temperature", machine.cpu_temperature_c()),
                ("cpu_load", machine.load_1min()),
                ("memory_free", machine.memory_free_bytes()),
                ("disk_free", machine.disk_free_bytes(self._site.state)),
            )
            for metric, value in values:
                if value is not None and METRICS[metric].low <= value <= METRICS[metric].high:
                    yield Reading(now, self._device, metric, value)
            await clock.sleep(self._config.interval_s)
