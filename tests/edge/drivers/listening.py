"""What the tests of drivers share: a driver run as the agent runs it, and a real serial port to talk to it."""

import asyncio
import fcntl
import os
import sys
import termios
import time
import tty
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import cast

from edge.drivers import Driver
from edge.records import Happened, Reading, Record
from simulators.clock import settle

HELD = 2048
"""Bytes that a pty certainly holds for a reader."""

PATIENCE_S = 5
"""Longest real time in which bytes come through a pty."""


class Listener:
    """Takes a driver's records one after the other; keeps them, and the error that ended it, for the test."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._came: asyncio.Queue[Record | Exception] = asyncio.Queue()

    async def __aenter__(self) -> "Listener":
        self._task = asyncio.create_task(self._run())
        await settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        records = cast(AsyncGenerator[Record, None], self._driver.records())
        try:
            async for record in records:
                if isinstance(record, Reading):
                    assert record.metric in self._driver.metrics
                self._came.put_nowait(record)
        except Exception as error:  # noqa: BLE001 - raised again in the test, by next() or so_far()
            self._came.put_nowait(error)
        finally:
            await records.aclose()

    async def next(self) -> Record:
        """The next record, waiting for it. Raises what the driver raised."""
        record = await asyncio.wait_for(self._came.get(), PATIENCE_S)
        if isinstance(record, Exception):
            raise record
        return record

    async def until(self, metric_or_type: str) -> list[Record]:
        """All records up to the next one of a metric or of a type of event, that one too."""
        records = [await self.next()]
        while said(records[-1]) != metric_or_type:
            records.append(await self.next())
        return records

    def so_far(self) -> list[Record]:
        """What came and was not taken yet. Raises what the driver raised."""
        records = []
        while not self._came.empty():
            record = self._came.get_nowait()
            if isinstance(record, Exception):
                raise record
            records.append(record)
        return records

    def events(self) -> list[Happened]:
        """The events of `so_far`."""
        return [record for record in self.so_far() if isinstance(record, Happened)]


def said(record: Record) -> str:
    """A reading's metric, an event's type."""
    return record.metric if isinstance(record, Reading) else record.event.type


def values(records: list[Record]) -> dict[str, float]:
    """The last value of each metric."""
    return {record.metric: record.value for record in records if isinstance(record, Reading)}


class Wire:
    """The device's end of a serial port."""

    def __init__(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)

    def send(self, data: bytes) -> None:
        """Puts bytes on the wire. They are there when this returns, as far as a port holds so many: the kernel takes its time."""
        there = min(self._waiting() + len(data), HELD)
        while data:
            data = data[os.write(self._master, data) :]
        deadline = time.monotonic() + PATIENCE_S
        while self._waiting() < there and time.monotonic() < deadline:
            time.sleep(0)

    def _waiting(self) -> int:
        """Bytes that came through and nobody read yet."""
        return int.from_bytes(fcntl.ioctl(self._slave, termios.FIONREAD, bytes(4)), sys.byteorder)

    def unplug(self) -> None:
        """Pulls the plug."""
        if self._master >= 0:
            os.close(self._master)
            os.close(self._slave)
            self._master = -1


@contextmanager
def wire() -> Iterator[Wire]:
    """A serial port with nothing on it yet."""
    plugged = Wire()
    try:
        yield plugged
    finally:
        plugged.unplug()
