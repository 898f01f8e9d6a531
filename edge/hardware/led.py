"""The board's own lamp, through Linux's LED class (Documentation/leds/leds-class.rst): a node that blinks can be found."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge.errors import DeviceError
from edge.hardware import machine

NAMES = ("ACT", "led0", "PWR", "led1")
"""As Raspberry Pi OS calls its lamps, the one that is everywhere first."""

BLINK_MS = 100
BRIGHTEST = "255"
"""More than a lamp has is as much as it has."""


class LampInUse(DeviceError):
    """It says something else just now, and would be put back wrongly: try again in some seconds."""


@contextmanager
def blinking() -> Iterator[None]:
    """Blinks fast while the block runs, then shows again what it showed before. DeviceError when no lamp can be had."""
    with _lamp("timer") as led:
        for delay in ("delay_on", "delay_off"):
            with suppress(OSError):  # they come with the trigger, as root's alone perhaps: it then blinks at its own pace
                if (led / delay).exists():
                    (led / delay).write_text(str(BLINK_MS), encoding="ascii")
        yield


@contextmanager
def by_hand() -> Iterator[Callable[[bool], None]]:
    """Dark at first; the function switches it on and off. As it was before when the block ends. DeviceError as of `blinking`."""
    with _lamp("none") as led:

        def switch(on: bool) -> None:
            (led / "brightness").write_text(BRIGHTEST if on else "0", encoding="ascii")

        switch(False)
        yield switch


_taken: set[Path] = set()


@contextmanager
def _lamp(trigger: str) -> Iterator[Path]:
    """The folder of the lamp, which this trigger switches while the block runs."""
    folder = machine.ROOT / "sys/class/leds"
    led = next((folder / name for name in NAMES if (folder / name / "trigger").exists()), None)
    if led is None:
        raise DeviceError(f"this board has no lamp of its own: none of {', '.join(NAMES)} in {folder}")
    if led in _taken:
        raise LampInUse(f"the lamp {led.name} says something else just now; try again in some seconds")
    _taken.add(led)
    try:
        try:
            before = _chosen((led / "trigger").read_text(encoding="ascii"))
            brightness = (led / "brightness").read_text(encoding="ascii")
            (led / "trigger").write_text(trigger, encoding="ascii")
        except OSError as error:
            raise DeviceError(f"the lamp {led} can't be switched: {error.strerror}. Is this user in the group gpio?") from error
        try:
            yield led
        finally:
            _restore(led, before, brightness)
    finally:
        _taken.discard(led)


def _restore(led: Path, trigger: str, brightness: str) -> None:
    (led / "trigger").write_text(trigger, encoding="ascii")
    if trigger == "none":  # nobody else says how bright it is
        (led / "brightness").write_text(brightness.strip(), encoding="ascii")


def _chosen(triggers: str) -> str:
    """`mmc0` of `none timer [mmc0] heartbeat`."""
    return next((word[1:-1] for word in triggers.split() if word.startswith("[") and word.endswith("]")), "none")
