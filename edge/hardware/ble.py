"""The machine's own Bluetooth: bleak on BlueZ listens, and BlueZ is asked over D-Bus whether its adapter is still well.

Scanning is active, and each repetition is asked for (`DuplicateData`): BlueZ would otherwise be silent about a tag that stands
still and says the same thing over and over, and passive scanning is an experiment of BlueZ's that not every Pi has switched on.
BlueZ and bleak remember a device for about half a minute after it was heard, as for any program; nothing here does.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from edge.clock import Clock
from edge.decoders.advertisement import Advertisement, Received
from edge.errors import DeviceError

if TYPE_CHECKING:
    from bleak.backends.device import BLEDevice
    from bleak.backends.scanner import AdvertisementData
    from dbus_fast.aio import MessageBus

ANSWER_S = 10.0
"""Longest wait for D-Bus and BlueZ, in real seconds: switching an adapter on takes one or two."""

MAX_WAITING = 4096
"""Advertisements kept for a slow reader; later ones push out the oldest, which are counted."""

_BLUEZ, _ADAPTER = "org.bluez", "org.bluez.Adapter1"
_BASE_UUID = "-0000-1000-8000-00805f9b34fb"  # Bluetooth Core, vol. 3 part B 2.5.1: what a 16-bit UUID is short for
_NO_SIGNAL = -127  # bleak's word where BlueZ tells none: then a device changed otherwise, and was not heard

_T = TypeVar("_T")


class Scan:
    """What an adapter hears, until it fails."""

    def __init__(self, adapter: str, on_heard: Callable[[], object]) -> None:
        self._adapter, self._on_heard = adapter, on_heard
        self._waiting: deque[Received] = deque(maxlen=MAX_WAITING)
        self._fault: DeviceError | None = None
        self.heard = False
        """Whether anything was heard since somebody set this to False."""
        self.lost = 0
        """Advertisements that nobody took in time, in total."""
        self.bad = 0
        """Damaged ones, in total: the adapter drops them itself."""

    def take(self) -> tuple[list[Received], bool]:
        """What has come, and whether anything has; `on_heard` is called when it has. DeviceError when the adapter failed."""
        if self._fault is not None:
            raise self._fault
        received = list(self._waiting)
        self._waiting.clear()
        return received, bool(received)

    def add(self, device: "BLEDevice", data: "AdvertisementData") -> None:
        """One advertisement, as bleak tells it."""
        if not _NO_SIGNAL < data.rssi <= 20:
            return
        services = {
            int(uuid[4:8], 16): content
            for uuid, content in data.service_data.items()
            if uuid.startswith("0000") and uuid.endswith(_BASE_UUID)
        }
        advertisement = Advertisement(dict(data.manufacturer_data), services, whole=True)
        self.lost += len(self._waiting) == MAX_WAITING
        self._waiting.append(Received(data.rssi, device.address.replace(":", "").lower(), advertisement))
        self.heard = True
        self._on_heard()

    def fail(self, fault: DeviceError) -> None:
        """Ends it: the next `take` raises this."""
        self._fault = fault
        self._on_heard()


@asynccontextmanager
async def open_scan(
    adapter: str, clock: Clock, check_s: float, on_heard: Callable[[], object], *, restart: bool = False
) -> AsyncIterator[Scan]:
    """A scan by `adapter` (`hci0`), looked after every `check_s`.

    An adapter that is off is switched on; with `restart` it is switched off before, which mends one that hangs. DeviceError, here
    or from `Scan.take`, when bleak, the bus, BlueZ or the adapter is missing, stays off, or does not scan any more.
    """
    try:
        from bleak import BleakScanner  # an extra: not every node has Bluetooth
        from bleak.exc import BleakError
        from dbus_fast import BusType, DBusError
        from dbus_fast.aio import MessageBus
    except ImportError as error:
        raise DeviceError(
            f"adapter {adapter} needs the package bleak ({error}): pip install 'satomori[edge,ble]', or use a receiver on a port"
        ) from error
    # At DEBUG it would write down everybody who passes by.
    logging.getLogger("bleak").setLevel(logging.WARNING)
    troubles = (BleakError, DBusError, OSError, EOFError, TimeoutError)

    async def tried(what: str, answer: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(ANSWER_S):  # and not wait_for, which before Python 3.12 may swallow that we are cancelled
                return await answer
        except DeviceError:
            raise
        except troubles as error:
            raise DeviceError(f"{what}: {str(error) or type(error).__name__}") from error

    bus = MessageBus(bus_type=BusType.SYSTEM)
    scan = Scan(adapter, on_heard)
    await tried("the system's D-Bus can't be reached; is BlueZ installed (sudo apt-get install bluez)", bus.connect())
    bus_watch = asyncio.create_task(_watch_bus(bus, scan, troubles))
    try:
        is_on = (await tried(f"Bluetooth adapter {adapter} does not answer", _properties(bus, adapter)))["Powered"]
        if restart and is_on:
            await tried(f"Bluetooth adapter {adapter} can't be switched off", _switch(bus, adapter, on=False))
        if restart or not is_on:
            await tried(f"Bluetooth adapter {adapter} is off and can't be switched on", _switch(bus, adapter, on=True))
        scanner = BleakScanner(scan.add, bluez={"adapter": adapter, "filters": {"DuplicateData": True}})
        await tried(f"Bluetooth adapter {adapter} can't scan", scanner.start())
        try:
            watch = asyncio.create_task(_watch(bus, adapter, clock, check_s, scan, tried))
            try:
                yield scan
            finally:
                watch.cancel()
                await asyncio.wait([watch])
        finally:
            # An adapter that went away has ended the scan itself; whoever opens it again begins a new one.
            with suppress(*troubles, AssertionError):
                async with asyncio.timeout(ANSWER_S):
                    await scanner.stop()
    finally:
        bus.disconnect()
        await asyncio.wait([bus_watch], timeout=ANSWER_S)


async def _watch(
    bus: "MessageBus",
    adapter: str,
    clock: Clock,
    check_s: float,
    scan: Scan,
    tried: Callable[[str, Awaitable[dict[str, Any]]], Awaitable[dict[str, Any]]],
) -> None:
    """Asks BlueZ again and again; ends with the first bad answer. Bleak itself would only be silent for ever."""
    while True:
        scan.heard = False
        await clock.sleep(check_s)
        try:
            said = await tried(f"Bluetooth adapter {adapter} does not answer any more", _properties(bus, adapter))
        except DeviceError as fault:
            scan.fail(fault)
            return
        if not said["Powered"]:
            scan.fail(DeviceError(f"Bluetooth adapter {adapter} was switched off or reset; it is switched on at the next try"))
            return
        # Between two rounds of a scan the adapter may rest for some seconds.
        if not said["Discovering"] and not scan.heard:
            scan.fail(DeviceError(f"Bluetooth adapter {adapter} has stopped scanning; it is begun anew at the next try"))
            return


async def _watch_bus(bus: "MessageBus", scan: Scan, troubles: tuple[type[Exception], ...]) -> None:
    """Fails the scan at once when the bus itself goes."""
    try:
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
        reason = "it was closed"
    except troubles as error:
        reason = str(error) or type(error).__name__
    scan.fail(DeviceError(f"the system's D-Bus has ended ({reason}); Bluetooth is opened again as soon as it is back"))


async def _properties(bus: "MessageBus", adapter: str) -> dict[str, Any]:
    """Of org.bluez.Adapter1, by name. DeviceError says what is missing."""
    from dbus_fast import unpack_variants

    said: dict[str, Any] = unpack_variants((await _call(bus, adapter, "GetAll", "s", [_ADAPTER]))[0])
    if not {"Powered", "Discovering"} <= said.keys():
        raise DeviceError(f"BlueZ tells nothing of Bluetooth adapter {adapter}; is it there (bluetoothctl list)?", named=adapter)
    return said


async def _switch(bus: "MessageBus", adapter: str, *, on: bool) -> None:
    from dbus_fast import Variant

    await _call(bus, adapter, "Set", "ssv", [_ADAPTER, "Powered", Variant("b", on)])


_HINTS = {
    "ServiceUnknown": "BlueZ does not run: sudo systemctl enable --now bluetooth",
    "NoReply": "BlueZ does not answer: sudo systemctl restart bluetooth",
    "UnknownObject": "there is no such adapter: bluetoothctl list tells which there are",
    "UnknownMethod": "there is no such adapter: bluetoothctl list tells which there are",
    "UnknownInterface": "there is no such adapter: bluetoothctl list tells which there are",
    "AccessDenied": "this user may not use BlueZ: add it to the group bluetooth",
    "Blocked": "it is blocked: rfkill unblock bluetooth",
}


async def _call(bus: "MessageBus", adapter: str, member: str, signature: str, body: list[Any]) -> list[Any]:
    """A method of org.freedesktop.DBus.Properties of the adapter. DeviceError with what to do when BlueZ refuses."""
    from dbus_fast import Message, MessageType

    reply = await bus.call(
        Message(
            destination=_BLUEZ,
            path=f"/org/bluez/{adapter}",
            interface="org.freedesktop.DBus.Properties",
            member=member,
            signature=signature,
            body=body,
        )
    )
    if reply.message_type is MessageType.ERROR:
        name = str(reply.error_name)
        said = " ".join(str(part) for part in reply.body)
        hint = next((hint for word, hint in _HINTS.items() if name.endswith(word) or word.lower() in said.lower()), None)
        raise DeviceError(f"Bluetooth adapter {adapter}: {hint or f'BlueZ refuses ({name}: {said})'}", named=adapter)
    return list(reply.body)
