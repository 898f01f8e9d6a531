"""Pins moved from outside: in this process through gpiozero's own mocks, in another one through a file."""

import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpiozero import DigitalInputDevice
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.hardware.pins import open_switch
from simulators.hardware import PinsFile, own_pins
from simulators.pin_factory import FilePins

WAIT_S = 20  # the longest any of these may take; it takes 20 ms


@pytest.fixture
def pins(tmp_path: Path) -> PinsFile:
    return PinsFile(tmp_path / "pins")


@pytest.fixture
def factory(pins: PinsFile) -> Iterator[FilePins]:
    made = FilePins(pins.path)
    yield made
    made.close()


def test_a_switch_of_this_process_closes_and_opens_at_once() -> None:
    edges: list[int] = []
    with own_pins() as pins, open_switch(17, lambda: edges.append(17)) as closed:
        assert not closed()
        pins.low(17)
        assert closed()
        pins.high(17)
        assert not closed()
    assert edges == [17, 17]


def test_own_pins_leave_no_trace() -> None:
    for _ in range(2):
        with own_pins() as pins, open_switch(4, lambda: None) as closed:
            assert not closed()
            pins.low(4)


@pytest.mark.parametrize("pin", [-1, 28])
def test_a_pin_that_no_header_has_is_refused(pins: PinsFile, pin: int) -> None:
    with pytest.raises(ValueError, match="BCM pins 0 to 27"):
        pins.low(pin)
    with own_pins() as own, pytest.raises(ValueError, match="BCM pins 0 to 27"):
        own.high(pin)


def test_a_pin_that_the_file_does_not_name_is_at_its_pull(factory: FilePins) -> None:
    with DigitalInputDevice(17, pull_up=True, pin_factory=factory) as switch:
        assert switch.pin.state == 1


def test_the_file_says_what_a_pin_was_before_the_agent_started(pins: PinsFile) -> None:
    pins.low(17)
    pins.low(18)
    pins.high(18)
    factory = FilePins(pins.path)
    with (
        DigitalInputDevice(17, pull_up=True, pin_factory=factory) as sprung,
        DigitalInputDevice(18, pull_up=True, pin_factory=factory) as set_again,
    ):
        assert (sprung.value, set_again.value) == (1, 0)
    factory.close()


def test_every_bounce_arrives_in_order(pins: PinsFile, factory: FilePins) -> None:
    seen: queue.Queue[int] = queue.Queue()
    with DigitalInputDevice(17, pull_up=True, pin_factory=factory) as switch:
        switch.when_activated = lambda: seen.put(0)
        switch.when_deactivated = lambda: seen.put(1)
        for _ in range(50):
            pins.low(17)
            pins.high(17)
        assert [seen.get(timeout=WAIT_S) for _ in range(100)] == [0, 1] * 50


def test_other_pins_stay_as_they_are(pins: PinsFile, factory: FilePins) -> None:
    moved = threading.Event()
    with (
        DigitalInputDevice(17, pull_up=True, pin_factory=factory) as one,
        DigitalInputDevice(27, pull_up=True, pin_factory=factory) as other,
    ):
        other.when_activated = moved.set
        pins.low(27)
        assert moved.wait(WAIT_S)
        assert (one.value, other.value) == (0, 1)


def test_half_a_line_waits_for_its_other_half(pins: PinsFile, factory: FilePins) -> None:
    moved = threading.Event()
    with DigitalInputDevice(1, pull_up=True, pin_factory=factory) as one:
        one.when_activated = moved.set
        with pins.path.open("ab", buffering=0) as file:
            file.write(b"1 l")
            factory._catch_up()
            assert one.value == 0
            file.write(b"ow\n")
        assert moved.wait(WAIT_S)


def test_a_bad_line_is_named_and_left_out(pins: PinsFile, caplog: pytest.LogCaptureFixture) -> None:
    pins.path.write_bytes(b"17 low\n28 low\n17 middle\n")
    with caplog.at_level(logging.ERROR):
        factory = FilePins(pins.path)
    factory.close()
    assert [record.getMessage().split("pins ")[-1] for record in caplog.records] == [
        "line 2 is b'28 low', not '<0..27> low' or '<0..27> high'; left out",
        "line 3 is b'17 middle', not '<0..27> low' or '<0..27> high'; left out",
    ]


@given(noise=st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_any_bytes_in_the_file_leave_the_next_good_line_good(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    path = tmp_path_factory.mktemp("pins") / "pins"
    path.write_bytes(noise + b"\n17 low\n")
    factory = FilePins(path)
    try:
        with DigitalInputDevice(17, pull_up=True, pin_factory=factory) as switch:
            assert switch.value == 1
    finally:
        factory.close()


def test_without_a_file_the_environment_variable_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SATOMORI_SIM_PINS", raising=False)
    with pytest.raises(OSError, match="SATOMORI_SIM_PINS is not set"):
        FilePins()


AGENT = """
import queue
from edge.hardware.pins import open_switch
edges = queue.Queue()
with open_switch(17, lambda: edges.put(None)) as closed:
    print("closed" if closed() else "open", flush=True)
    for _ in range(2):
        edges.get()
        print("closed" if closed() else "open", flush=True)
"""


def test_the_pins_of_an_unchanged_edge_process_move_from_outside(tmp_path: Path, pins: PinsFile) -> None:
    # gpiozero finds the factory by the entry point that the installed project has; here in a package of its own.
    package = tmp_path / "site" / "satomori_sim-0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: satomori-sim\nVersion: 0\n")
    (package / "entry_points.txt").write_text("[gpiozero_pin_factories]\nsatomori-sim = simulators.pin_factory:FilePins\n")
    paths = os.pathsep.join([str(package.parent), *sys.path])
    pins.low(17)
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT],
        env={**os.environ, "PYTHONPATH": paths, **pins.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert agent.stdout is not None
    assert agent.stderr is not None
    last_resort = threading.Timer(WAIT_S, agent.kill)
    last_resort.start()
    try:
        with agent:
            said = [agent.stdout.readline().strip()]
            pins.high(17)
            said.append(agent.stdout.readline().strip())
            pins.low(17)
            said.append(agent.stdout.readline().strip())
            errors = agent.stderr.read()
    finally:
        last_resort.cancel()
    assert said == ["closed", "open", "closed"], errors
    assert agent.returncode == 0, errors
