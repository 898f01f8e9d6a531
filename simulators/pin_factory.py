"""GPIO pins whose levels come from a file: gpiozero's mock pins, moved from outside of the process.

gpiozero loads this by itself (GPIOZERO_PIN_FACTORY=satomori-sim, an entry point), so that an edge agent runs unchanged
in its own process while a simulator writes the file. The file is only ever appended to, one line a change:

    17 low
    17 high

A file rather than a socket, because it also says what a pin was *before* the agent started or started again, keeps
every bounce of a chattering switch in order, and needs nobody at the other end.
"""

import logging
import os
import re
import threading
from pathlib import Path

from gpiozero.pins.mock import MockFactory, MockPin

FACTORY = "satomori-sim"
"""The value of GPIOZERO_PIN_FACTORY."""

PINS_FILE = "SATOMORI_SIM_PINS"
"""The environment variable that names the file."""

_POLL_S = 0.02
_LINE = re.compile(rb"([0-9]|1[0-9]|2[0-7]) (low|high)")
_log = logging.getLogger(__name__)


class FilePin(MockPin):  # type: ignore[misc]  # gpiozero ships no types
    """A mock pin that something outside drives as soon as the file says so; until then its pull decides."""

    def _set_pull(self, value: str) -> None:
        # A pull never wins against what drives the pin; a real switch to ground holds it low through every set-up.
        with self.factory.lock:
            super()._set_pull(value)
            self.factory.drive(self)


class FilePins(MockFactory):  # type: ignore[misc]  # gpiozero ships no types
    """The pins of one node. `path` is the file; without one, the environment names it.

    The file may be missing until the first change. It is looked at 50 times a second, in a thread of its own.
    """

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            named = os.environ.get(PINS_FILE)
            if not named:
                raise OSError(f"{PINS_FILE} is not set: GPIOZERO_PIN_FACTORY={FACTORY} needs the file of pins in it")
            path = Path(named)
        super().__init__(pin_class=FilePin)
        self.lock = threading.RLock()
        self._path = path
        self._levels: dict[int, bool] = {}
        self._read = 0  # bytes of the file
        self._lines = 0
        self._closing = threading.Event()
        self._catch_up()
        self._thread = threading.Thread(target=self._follow, name="sim-pins", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops following the file, then closes the pins."""
        self._closing.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        super().close()

    def drive(self, pin: FilePin) -> None:
        """Puts a pin at the level the file last said, if it said one."""
        level = self._levels.get(int(pin.info.name.removeprefix("GPIO")))
        if level is not None and pin.function == "input":
            if level:
                pin.drive_high()
            else:
                pin.drive_low()

    def _follow(self) -> None:
        while not self._closing.wait(_POLL_S):
            try:
                self._catch_up()
            except OSError as error:
                # Once, and then nothing moves any more: a simulator must not guess.
                _log.error("simulated pins: %s can't be read: %s. The pins stay as they are.", self._path, error)
                return

    def _catch_up(self) -> None:
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                added = file.read()
        except FileNotFoundError:
            return  # nothing was driven yet
        whole = added[: added.rfind(b"\n") + 1]  # a line half written is read the next time
        self._read += len(whole)
        for line in whole.splitlines():
            self._lines += 1
            match = _LINE.fullmatch(line)
            if match is None:
                _log.error(
                    "simulated pins: %s line %d is %r, not '<0..27> low' or '<0..27> high'; left out",
                    self._path,
                    self._lines,
                    line[:40],
                )
                continue
            number = int(match[1])
            with self.lock:
                self._levels[number] = match[2] == b"high"
                for info, pin in list(self.pins.items()):
                    if info.name == f"GPIO{number}":
                        self.drive(pin)
