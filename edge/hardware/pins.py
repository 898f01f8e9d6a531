"""GPIO pins through gpiozero; its pin factory (real or MockFactory) is the seam below."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge.errors import DeviceError


@contextmanager
def open_switch(pin: int, on_edge: Callable[[], object]) -> Iterator[Callable[[], bool]]:
    """A switch between `pin` (BCM) and ground, pulled up; yields a function that tells whether it is closed now.

    `on_edge` is called, from gpiozero's thread, at every change. DeviceError when the pin can't be had.
    """
    from gpiozero import DigitalInputDevice  # heavy, and only nodes with pins have its back ends
    from gpiozero.exc import GPIOZeroError, PinFactoryFallback

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PinFactoryFallback)  # which back ends it tried in vain: the error is enough
            switch = DigitalInputDevice(pin, pull_up=True)
    except (GPIOZeroError, OSError) as error:
        raise DeviceError(
            f"GPIO pin {pin} can't be opened: {error or type(error).__name__}. "
            "Is another device on this pin, and is this a Raspberry Pi with the lgpio package?",
            named=pin,
        ) from error
    try:
        switch.when_activated = switch.when_deactivated = on_edge
        yield lambda: bool(switch.value)
    finally:
        switch.close()
