"""The node itself: heartbeat (its uptime), its heat, supply, memory, disk and wear, its uplink, its clock and its outbox."""

from collections.abc import AsyncIterator
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge.contract.metrics import METRICS
from edge.hardware import machine
from edge.hardware.modem import Modem
from edge.records import Reading, Record, Site

CLOCK_SYNC = {"sync": 2, "holdover": 1, "unsync": 0}


class NodeHealthConfig(BaseModel):
    """`type = "node_health"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["node_health"]
    interval_s: Annotated[float, Field(ge=1, le=86_400, description="How often the node speaks of itself.")] = 60


class NodeHealth:
    """Reads the machine's own sensors. One that is missing, or says what can't be, is left out: never zero."""

    metrics: ClassVar[tuple[str, ...]] = (
        "heartbeat",
        "cpu_temperature",
        "cpu_load",
        "memory_free",
        "agent_memory",
        "disk_free",
        "disk_written",
        "throttled",
        "undervoltage",
        "supply_voltage",
        "uplink_rssi",
        "clock_sync",
        "outbox_waiting",
    )

    def __init__(self, device: str, config: NodeHealthConfig, site: Site) -> None:
        self._device, self._config, self._site = device, config, site
        self._modem = Modem()

    async def records(self) -> AsyncIterator[Record]:
        """All of it at once, then each interval."""
        site = self._site
        while True:
            now = site.clock.now()
            supply = machine.supply()
            signal_dbm = machine.wifi_rssi_dbm()
            values = (
                ("heartbeat", now.mono_us / 1e6),
                ("cpu_temperature", machine.cpu_temperature_c()),
                ("cpu_load", machine.load_1min()),
                ("memory_free", machine.memory_free_bytes()),
                ("agent_memory", machine.agent_memory_bytes()),
                ("disk_free", machine.disk_free_bytes(site.state)),
                ("disk_written", machine.disk_written_bytes(site.state)),
                ("throttled", None if supply is None else float(supply.throttled)),
                ("undervoltage", None if supply is None else float(supply.undervoltage)),
                ("supply_voltage", machine.supply_voltage_v()),
                ("uplink_rssi", await self._modem.rssi_dbm() if signal_dbm is None else signal_dbm),
                ("clock_sync", CLOCK_SYNC.get(site.clock_state())),
                ("outbox_waiting", site.waiting()),
            )
            for metric, value in values:
                if value is not None and METRICS[metric].low <= value <= METRICS[metric].high:
                    yield Reading(now, self._device, metric, value)
            await site.clock.sleep(self._config.interval_s)
