"""A fake org.bluez on a private D-Bus: the lowest seam below bleak. Behaves as BlueZ 5.66 does, as far as a scanner can see.

Paced: what it says has passed through the bus before it goes on, because a client that is flooded drops messages.
"""

import asyncio
import gc
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from dbus_fast import BusType, DBusError, Message, NameFlag, PropertyAccess, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusBool, DBusDict, DBusInt16, DBusObjectPath, DBusSignature, DBusStr
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property

from tests.services import require_binary, running

_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
  </policy>
</busconfig>
"""


@contextmanager
def private_bus(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A D-Bus of its own: its address, for DBUS_SYSTEM_BUS_ADDRESS, and the process, for tests that kill it."""
    path, config = folder / "bus", folder / "bus.conf"
    config.write_text(_CONFIG.format(socket=path), encoding="ascii")
    argv: list[str | Path] = [require_binary("dbus-daemon"), f"--config-file={config}", "--nofork", "--nopidfile", "--nosyslog"]
    with running(argv, lambda: _listens(path)) as process:
        yield f"unix:path={path}", process
    # A client whose bus was killed leaves futures in cycles that nobody asks for their error. Collected later, in the middle of
    # ast.parse, asyncio's complaint of them would break Python 3.11's parser ("recursion depth mismatch") and with it pytest.
    gc.collect()


def _listens(path: Path) -> bool:
    """The file is there a moment before anybody may connect."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


class _Adapter(ServiceInterface):
    """org.bluez.Adapter1."""

    def __init__(self) -> None:
        super().__init__("org.bluez.Adapter1")
        self.powered = True
        self.can_be_switched_on = True
        self.discovering = False
        self.filter: dict[str, Any] = {}
        self.switched: list[bool] = []

    @dbus_method()
    def StartDiscovery(self) -> None:
        if not self.powered:
            raise DBusError("org.bluez.Error.NotReady", "Resource Not Ready")
        self.discovers(now=True)

    @dbus_method()
    def StopDiscovery(self) -> None:
        if not self.powered:
            raise DBusError("org.bluez.Error.NotReady", "Resource Not Ready")
        if not self.discovering:
            raise DBusError("org.bluez.Error.Failed", "No discovery started")
        self.discovers(now=False)

    @dbus_method()
    def SetDiscoveryFilter(self, properties: DBusDict) -> None:
        self.filter = {name: value.value for name, value in properties.items()}

    @dbus_property(PropertyAccess.READ)
    def Address(self) -> DBusStr:
        return "02:00:00:00:00:01"

    @dbus_property(PropertyAccess.READ)
    def Discovering(self) -> DBusBool:
        return self.discovering

    @dbus_property(PropertyAccess.READ)
    def Roles(self) -> Annotated[list[str], DBusSignature("as")]:
        return ["central", "peripheral"]

    @dbus_property()
    def Powered(self) -> DBusBool:
        return self.powered

    @Powered.setter
    def SetPowered(self, on: DBusBool) -> None:
        if on and not self.can_be_switched_on:
            raise DBusError("org.bluez.Error.Blocked", "Blocked through rfkill")
        self.switched.append(on)
        self.power(on=on)

    def power(self, *, on: bool) -> None:
        self.powered = on
        self.emit_properties_changed({"Powered": on})
        if not on:
            self.discovers(now=False)

    def discovers(self, *, now: bool) -> None:
        self.discovering = now
        self.emit_properties_changed({"Discovering": now})


class _Device(ServiceInterface):
    """org.bluez.Device1."""

    def __init__(self, adapter: str, address: str, rssi: int) -> None:
        super().__init__("org.bluez.Device1")
        self._adapter, self._address = adapter, address
        self.rssi = rssi
        self.manufacturer: dict[int, Variant] = {}
        self.services: dict[str, Variant] = {}

    @dbus_property(PropertyAccess.READ)
    def Adapter(self) -> DBusObjectPath:
        return self._adapter

    @dbus_property(PropertyAccess.READ)
    def Address(self) -> DBusStr:
        return self._address

    @dbus_property(PropertyAccess.READ)
    def Alias(self) -> DBusStr:
        return self._address.replace(":", "-")

    @dbus_property(PropertyAccess.READ)
    def RSSI(self) -> DBusInt16:
        return self.rssi

    @dbus_property(PropertyAccess.READ)
    def ManufacturerData(self) -> Annotated[dict[int, Variant], DBusSignature("a{qv}")]:
        return self.manufacturer

    @dbus_property(PropertyAccess.READ)
    def ServiceData(self) -> Annotated[dict[str, Variant], DBusSignature("a{sv}")]:
        return self.services


class Bluez:
    """bluetoothd with one adapter, hci0."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self.adapter = _Adapter()
        self._devices: dict[str, _Device] = {}
        self.plug()

    def plug(self) -> None:
        """The adapter is there, also again after a reset."""
        self._bus.export("/org/bluez/hci0", self.adapter)

    def unplug(self) -> None:
        """The adapter is gone, as a USB reset does it: all its devices go with it."""
        for address in list(self._devices):
            self.forget(address)
        self._bus.unexport("/org/bluez/hci0")
        self.adapter.discovering = False

    def forget(self, address: str) -> None:
        """A device was not heard for long, and bluetoothd drops it."""
        self._bus.unexport(self._path(address), self._devices.pop(address))

    async def advertise(
        self, address: str, rssi: int, *, manufacturer: dict[int, bytes] | None = None, services: dict[int, bytes] | None = None
    ) -> None:
        """One advertisement on the air. What the adapter does not hear, because it is off or rests, nobody hears."""
        if not self.adapter.discovering:
            return
        new_manufacturer = {company: Variant("ay", data) for company, data in (manufacturer or {}).items()}
        new_services = {
            f"0000{service:04x}-0000-1000-8000-00805f9b34fb": Variant("ay", data) for service, data in (services or {}).items()
        }
        device = self._devices.get(address)
        if device is None:
            device = self._devices[address] = _Device("/org/bluez/hci0", address, rssi)
            device.manufacturer, device.services = new_manufacturer, new_services
            self._bus.export(self._path(address), device)
        else:
            # src/device.c: without DuplicateData only what differs is told; with it, all that was heard, again each time.
            again = self.adapter.filter.get("DuplicateData", False)
            changed: dict[str, Any] = {}
            if rssi != device.rssi:
                device.rssi = changed["RSSI"] = rssi
            if new_manufacturer and (again or device.manufacturer != (device.manufacturer | new_manufacturer)):
                device.manufacturer = new_manufacturer if again else device.manufacturer | new_manufacturer
                changed["ManufacturerData"] = device.manufacturer
            if new_services and (again or device.services != (device.services | new_services)):
                device.services = new_services if again else device.services | new_services
                changed["ServiceData"] = device.services
            if changed:
                device.emit_properties_changed(changed)
        await self.paced()

    async def silence(self, address: str) -> None:
        """Tells that a device has no signal any more, as at the end of a scan: no advertisement."""
        self._devices[address].emit_properties_changed({}, ["RSSI"])
        await self.paced()

    async def paced(self) -> None:
        """Waits until the bus has taken all that was said."""
        await self._bus.call(
            Message(
                destination="org.freedesktop.DBus",
                path="/org/freedesktop/DBus",
                interface="org.freedesktop.DBus",
                member="GetId",
            )
        )
        await asyncio.sleep(0)  # and lets those who heard it have their turn

    @staticmethod
    def _path(address: str) -> str:
        return f"/org/bluez/hci0/dev_{address.replace(':', '_')}"


@asynccontextmanager
async def bluez_on(address: str) -> AsyncIterator[Bluez]:
    """bluetoothd running on the bus at this address; ends with the block."""
    bus = await MessageBus(bus_address=address, bus_type=BusType.SYSTEM).connect()
    bluez = Bluez(bus)
    await bus.request_name("org.bluez", NameFlag.NONE)
    try:
        yield bluez
    finally:
        bus.disconnect()
        with suppress(EOFError, OSError):  # as tests that kill the bus mean it
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
