"""The table of metrics: every reading's name, unit and possible range. A new metric is a new row here.

Names carry no unit and are chosen once for all devices; units are UCUM codes (https://ucum.org). `low` and `high` say what is
*possible*, not what is good: a value outside is a fault of the sensor or the wire and is refused, never clamped.
"""

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """How values of a metric relate over time."""

    GAUGE = "gauge"
    TOTAL = "total"  # only grows; a smaller value is a restart of the counter


class Metric(NamedTuple):
    """One row: a metric's unit, its possible range (both ends included) and what it means."""

    unit: str
    kind: Kind
    low: float
    high: float
    meaning: str


METRICS: dict[str, Metric] = {
    "heartbeat": Metric("s", Kind.GAUGE, 0, 1e10, "The device was read and is alive; the value is its uptime."),
    "trap_closed": Metric("1", Kind.GAUGE, 0, 1, "1 while the trap's switch says sprung, 0 while it says set."),
    "count_in": Metric("{person}", Kind.TOTAL, 0, 2**53, "People who crossed the line inwards, in total."),
    "count_out": Metric("{person}", Kind.TOTAL, 0, 2**53, "People who crossed the line outwards, in total."),
    "frames_bad": Metric("1", Kind.TOTAL, 0, 2**53, "Frames or advertisements that arrived damaged and were dropped."),
    "frames_foreign": Metric("1", Kind.TOTAL, 0, 2**53, "Advertisements of devices that are not ours, dropped, in total."),
    "tags_near": Metric("{tag}", Kind.GAUGE, 0, 1e5, "Watch tags within reach of the receiver now."),
    "media_count": Metric("{file}", Kind.TOTAL, 0, 2**53, "Pictures taken in from the camera's folder, in total."),
    "battery_voltage": Metric("V", Kind.GAUGE, 0, 100, "Voltage of the device's battery or supply."),
    "rssi": Metric("dB[mW]", Kind.GAUGE, -200, 50, "Strength of the received signal."),
    "snr": Metric("dB", Kind.GAUGE, -100, 100, "Signal-to-noise ratio of the received signal."),
    "cpu_temperature": Metric("Cel", Kind.GAUGE, -60, 150, "Temperature of the node's processor."),
    "cpu_load": Metric("1", Kind.GAUGE, 0, 1e4, "Processes ready to run, mean of the last minute."),
    "memory_free": Metric("By", Kind.GAUGE, 0, 2**53, "Memory the node could still hand out."),
    "disk_free": Metric("By", Kind.GAUGE, 0, 2**53, "Free space on the file system that holds the node's state."),
    "outbox_waiting": Metric("{record}", Kind.GAUGE, 0, 2**53, "Records the gateway has not acknowledged yet."),
}
