"""The Pi's own camera and the motion sensor that wakes it.

picamera2, which comes with the system (python3-picamera2), and gpiozero are imported when they are opened.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge.errors import DeviceError


@contextmanager
def open_camera(width: int, height: int) -> Iterator[Callable[[], bytes]]:
    """Yields a function that takes a picture, a JPEG of this size; it blocks for up to a second. DeviceError, in both.

    One process can have the camera.
    """
    try:
        from picamera2 import Picamera2  # type: ignore[import-not-found,unused-ignore]  # of the system, not of PyPI
    except ImportError as error:
        raise DeviceError(
            f"the camera needs picamera2 ({error}): sudo apt install python3-picamera2, and let this program's environment "
            "see the system's packages (python3 -m venv --system-site-packages)"
        ) from error
    try:
        camera = Picamera2()
    except (IndexError, RuntimeError, OSError) as error:  # IndexError: libcamera found none
        raise DeviceError(
            f"the camera can't be opened: {str(error) or type(error).__name__}. Is its cable in, with the contacts on the "
            "right side, and does no other program use it (rpicam-hello --list-cameras)?"
        ) from error
    try:
        try:
            camera.configure(camera.create_still_configuration(main={"size": (width, height)}))
            camera.start()
        except (RuntimeError, ValueError, OSError) as error:
            raise DeviceError(f"the camera can't take pictures of {width} x {height}: {error}") from error

        def take() -> bytes:
            content = io.BytesIO()
            try:
                camera.capture_file(content, format="jpeg")
            except (RuntimeError, ValueError, OSError) as error:
                raise DeviceError(f"the camera took no picture: {str(error) or type(error).__name__}") from error
            return content.getvalue()

        yield take
    finally:
        camera.close()


@contextmanager
def open_motion(pin: int, on_motion: Callable[[], object]) -> Iterator[None]:
    """A passive infrared sensor on `pin` (BCM) whose output goes high when warmth moves; `on_motion` is called, from gpiozero's
    thread, each time it does. DeviceError when the pin can't be had."""
    from gpiozero import DigitalInputDevice
    from gpiozero.exc import GPIOZeroError, PinFactoryFallback

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PinFactoryFallback)
            sensor = DigitalInputDevice(pin, pull_up=False)
    except (GPIOZeroError, OSError) as error:
        raise DeviceError(
            f"GPIO pin {pin} of the motion sensor can't be opened: {str(error) or type(error).__name__}. "
            "Is another device on this pin, and is this a Raspberry Pi with the lgpio package?",
            named=pin,
        ) from error
    try:
        sensor.when_activated = on_motion
        yield
    finally:
        sensor.close()
