"""What stands in for the world between edge and gateway in a story: the wire, clocks that are wrong, a store with a plug.

The wire is a broker's persistent session: it keeps what is published while the gateway is away, and can be emptied.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge.clock import Instant
from edge.contract.broker import BrokerConfig
from edge.contract.topics import parse
from edge.hardware import machine as own_machine
from edge.uplink import LinkWords, Listener
from gateway.errors import StoreDown
from gateway.pipeline import Message
from gateway.store import SqliteStore
from simulators.clock import VirtualClock

HOLDS_EVENT = b'"events":[{'


class CrashError(BaseException):
    """The gateway was killed here. Not an Exception: no code of the gateway may catch it."""


class Wire:
    """What a broker does between clients: sessions that keep messages, retained messages, last wills."""

    def __init__(self) -> None:
        self.links: dict[str, WireLink] = {}
        self.to_gateway: deque[Message] = deque()
        self.running = True
        self.lose_next_event = False
        self._retained: dict[str, bytes] = {}

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """From a node; kept until the gateway takes it."""
        if self.lose_next_event and HOLDS_EVENT in payload:
            self.lose_next_event = False
            return
        self.to_gateway.append(Message(topic, payload))
        if retain:
            self._retained[topic] = payload

    def down(self, topic: str, payload: bytes) -> None:
        """From the gateway to one node, when it is there: an ack that comes late is of no use."""
        link = self.links.get(parse(topic).node)
        if link is not None and link.up:
            link.listener.received(topic, payload)

    def restart_empty(self) -> None:
        """Killed, and started again with nothing remembered."""
        self.to_gateway.clear()
        self._retained.clear()
        for link in self.links.values():
            link.cut("broker gone")


class WireLink:
    """A node's link (see edge.agent.Link): up whenever the wire runs and nobody has cut it."""

    def __init__(self, wire: Wire, words: LinkWords, listener: Listener) -> None:
        self.wire, self.words, self.listener = wire, words, listener
        self.up = False
        self.allowed = True
        wire.links[words.client_id] = self

    def start(self) -> None:
        """Connects at the next step."""

    def connect_if_possible(self) -> None:
        """What the real link's thread does with its backoff, here once a step."""
        if not self.up and self.allowed and self.wire.running:
            self.up = True
            self.listener.link_up()

    def cut(self, reason: str) -> None:
        """The connection breaks; the broker speaks the last will."""
        if self.up:
            self.up = False
            self.wire.publish(self.words.will_topic, self.words.will, retain=True)
            self.listener.link_down(reason)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """To the gateway, or nowhere while the link is cut."""
        if self.up:
            self.wire.publish(topic, payload, retain=retain)

    def use(self, config: BrokerConfig) -> None:
        """There is only this wire."""

    def stop(self) -> None:
        """A clean end: no last will."""
        self.up = False
        self.wire.links.pop(self.words.client_id, None)


class PluggedStore(SqliteStore):
    """The real store with a plug to pull."""

    plugged = True

    def write(self, points: Any, *, patience_s: float | None = None) -> None:
        """As the real one, or StoreDown."""
        if not self.plugged:
            raise StoreDown("scenario: the store is down")
        super().write(points, patience_s=patience_s)


class Skewed:
    """A node's clock (see edge.clock.Clock): the story's time, wrong by so much, and since its own boot."""

    def __init__(self, true: VirtualClock, off_us: int, booted_us: int) -> None:
        self._true, self.off_us, self._booted_us = true, off_us, booted_us
        self.disciplined = False

    def now(self) -> Instant:
        """What the machine believes."""
        utc_us, mono_us = self._true.now()
        return Instant(utc_us + self.off_us, mono_us - self._booted_us)

    async def sleep(self, seconds: float) -> None:
        """A wrong clock runs as fast as a right one."""
        await self._true.sleep(seconds)


MACHINE = {
    "proc/loadavg": "0.20 0.15 0.10 1/150 900",
    "proc/meminfo": "MemTotal: 440000 kB\nMemAvailable: 250000 kB",
    "proc/self/status": "VmRSS: 50000 kB",
    "proc/net/wireless": "wlan0: 0000 54. -62. -256 0 0 0 0 0 0",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "48000",
}
"""What nodes find under / : a Pi over Wi-Fi. Otherwise a story would end as the sensors of this machine have it."""


@contextmanager
def same_machine(root: Path) -> Iterator[None]:
    """Nodes find MACHINE, whatever this machine is."""
    for name, content in MACHINE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n", encoding="ascii")
    before, own_machine.ROOT = own_machine.ROOT, root
    try:
        yield
    finally:
        own_machine.ROOT = before
