"""What tests of the edge share: pins that a test can move, below gpiozero."""

from collections.abc import Iterator

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory


@pytest.fixture
def pins() -> Iterator[MockFactory]:
    before, factory = Device.pin_factory, MockFactory()
    Device.pin_factory = factory
    try:
        yield factory
    finally:
        Device.pin_factory = before
        factory.close()
