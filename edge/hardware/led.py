"""The board's own lamp, through Linux's LED class (Documentation/leds/leds-class.rst): a node that blinks can be found."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.errors import DeviceError
from edge.hardware import machine

NAMES = ("ACT", "led0", "PWR", "led1")
"""As Raspberry Pi OS calls its lamps, the one that is everywhere first."""

BLINK_MS = 100


@contextmanager
def blinking() -> Iterator[None]:
    """Blinks fast while the block runs, then shows again what it showed before. DeviceError when no lamp can be had."""
    folder = machine.ROOT / "sys/class/leds"
    led = next((folder / name for name in NAMES if (folder / name / "trigger").exists()), None)
    if led is None:
        raise DeviceError(f"this board has no lamp of its own: none of {', '.join(NAMES)} in {folder}")
    try:
        before = _chosen((led / "trigger").read_text(encoding="ascii"))
        brightness = (led / "brightness").read_text(encoding="ascii")
        (led / "trigger").write_text("timer", encoding="ascii")
        for delay in ("delay_on", "delay_off"):
            if (led / delay).exists():  # they come with the trigger
                (led / delay).write_text(str(BLINK_MS), encoding="ascii")
    except OSError as error:
        raise DeviceError(f"the lamp {led} can't be switched: {error.strerror}. Is this user in the group gpio?") from error
    try:
        yield
    finally:
        _restore(led, before, brightness)


def _restore(led: Path, trigger: str, brightness: str) -> None:
    (led / "trigger").write_text(trigger, encoding="ascii")
    if trigger == "none":  # nobody else says how bright it is
        (led / "brightness").write_text(brightness.strip(), encoding="ascii")


def _chosen(triggers: str) -> str:
    """`mmc0` of `none timer [mmc0] heartbeat`."""
    return next((word[1:-1] for word in triggers.split() if word.startswith("[") and word.endswith("]")), "none")
