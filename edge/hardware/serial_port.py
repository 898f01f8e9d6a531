"""Serial ports through pyserial, read by the event loop: no thread, and nothing is ever written to a device."""

import asyncio
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge.errors import DeviceError

READ_BYTES = 4096


@contextmanager
def open_serial(port: str, baud: int, on_bytes: Callable[[], object]) -> Iterator[Callable[[], bytes]]:
    """`port` (8N1, locked against a second reader); yields a function that takes what has come, b"" if nothing has.

    `on_bytes` is called in the event loop when something can be taken, and then not again until it was: a slow reader
    costs nothing. DeviceError when the port can't be opened, and from the function when it was unplugged.
    """
    import serial

    try:
        device = serial.Serial(port, baud, timeout=0, exclusive=True)
    except (OSError, ValueError, termios.error) as error:
        raise DeviceError(
            f"serial port {port} can't be opened at {baud} baud: {error}. Is the device plugged in, is the name right "
            "(ls -l /dev/serial/by-id), is this user in the group dialout, and does nothing else use the port?",
            named=port,
        ) from error
    loop = asyncio.get_running_loop()
    number = device.fileno()

    def readable() -> None:
        # A port is readable for as long as nobody reads it, for ever once it is unplugged.
        loop.remove_reader(number)
        on_bytes()

    def take() -> bytes:
        try:
            chunk = device.read(READ_BYTES)
        except OSError as error:
            raise DeviceError(f"serial port {port} was unplugged or fails: {error}. Check its plug and cable.") from error
        loop.add_reader(number, readable)
        return bytes(chunk)

    try:
        loop.add_reader(number, readable)
        yield take
    finally:
        loop.remove_reader(number)
        device.close()
