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
    "battery_level": Metric("%", Kind.GAUGE, 0, 100, "Charge of the device's battery, as the device says it."),
    "tilt_angle": Metric("deg", Kind.GAUGE, -180, 180, "Angle of the trap against upright."),
    "bump": Metric("1", Kind.TOTAL, 0, 2**53, "Shocks and vibrations that the trap felt, in total."),
    "pir_count": Metric("1", Kind.TOTAL, 0, 2**53, "Times the motion sensor saw warmth move, in total."),
    "bait_level": Metric("%", Kind.GAUGE, 0, 100, "What is left of the bait."),
    "frames_lost": Metric("1", Kind.TOTAL, 0, 2**53, "Frames of this device that never arrived, by the gaps of its counter."),
    "media_withheld": Metric("{file}", Kind.TOTAL, 0, 2**53, "Pictures kept on the node because a person may be in them."),
    "counter_resets": Metric("1", Kind.TOTAL, 0, 2**53, "Times the counter began anew or ran over; its totals went on."),
    "uplink_rssi": Metric("dB[mW]", Kind.GAUGE, -200, 50, "Signal of the node's own way to the network (Wi-Fi or mobile)."),
    "disk_written": Metric("By", Kind.TOTAL, 0, 2**60, "Bytes written to the disk that holds the state, since boot: its wear."),
    "throttled": Metric("1", Kind.GAUGE, 0, 1, "1 while the processor is slowed down by heat or low supply."),
    "undervoltage": Metric("1", Kind.GAUGE, 0, 1, "1 while the node's supply is too low."),
    "supply_voltage": Metric("V", Kind.GAUGE, 0, 100, "Voltage of the node's supply, where the board measures it."),
    "clock_sync": Metric("1", Kind.GAUGE, 0, 2, "The node's clock: 2 disciplined now, 1 earlier in this boot, 0 never."),
    "agent_memory": Metric("By", Kind.GAUGE, 0, 2**53, "Memory that the agent itself holds (resident)."),
    "cpu_temperature": Metric("Cel", Kind.GAUGE, -60, 150, "Temperature of the node's processor."),
    "cpu_load": Metric("1", Kind.GAUGE, 0, 1e4, "Processes ready to run, mean of the last minute."),
    "memory_free": Metric("By", Kind.GAUGE, 0, 2**53, "Memory the node could still hand out."),
    "disk_free": Metric("By", Kind.GAUGE, 0, 2**53, "Free space on the file system that holds the node's state."),
    "outbox_waiting": Metric("{record}", Kind.GAUGE, 0, 2**53, "Records the gateway has not acknowledged yet."),
}
