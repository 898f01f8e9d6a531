import asyncio

import pytest

from edge.errors import DeviceError
from edge.hardware.serial_port import open_serial
from tests.edge.drivers.listening import wire


def test_a_reader_that_takes_its_time_is_told_once_and_costs_nothing() -> None:
    async def play() -> None:
        told = asyncio.Event()
        calls = 0

        def on_bytes() -> None:
            nonlocal calls
            calls += 1
            told.set()

        with wire() as line, open_serial(line.port, 9600, on_bytes) as take:
            assert take() == b""
            for word in (b"first", b"second"):
                told.clear()
                line.send(word)
                await asyncio.wait_for(told.wait(), 5)
                before = calls
                for _ in range(50):
                    await asyncio.sleep(0)
                assert calls == before
                assert take() == word
            assert calls == 2

    asyncio.run(play())


@pytest.mark.parametrize("port", ["/dev/null", "/dev", "/dev/none", "a\0b"])
def test_what_is_no_serial_port_is_said_by_its_name(port: str) -> None:
    async def play() -> None:
        with pytest.raises(DeviceError, match=r"serial port .* can't be opened at 9600 baud"), open_serial(port, 9600, print):
            pass

    asyncio.run(play())
