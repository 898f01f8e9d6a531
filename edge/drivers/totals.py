"""People counted in and out, as totals that only grow: over restarts of the agent, and over resets and rollovers of the counter.

A lost message loses no people, because the next total holds them; and a counter that begins anew does not take back those it had
counted. The file holds the totals beside the counter's own numbers at that moment, so that people who passed while no agent
listened are found again, and nobody is counted twice after a power cut.
"""

import json
import logging
from pathlib import Path
from typing import NamedTuple

from edge.durable import write_whole
from edge.errors import DeviceError

log = logging.getLogger(__name__)

_NEAR = 16
"""A counter that fell from its last sixteenth into its first ran over; any other fall is a reset. A counter that loses its power
within its last sixteenth is taken to have run over, too: with 16 bits, that counts 4096 people too many at most."""


class Counts(NamedTuple):
    """People in and out, as a counter says them or as we do."""

    inward: int
    outward: int


class Totals:
    """One device's totals."""

    def __init__(self, state: Path) -> None:
        """Reads what was saved in the device's folder. A file that holds something else is said, and the totals begin at zero.

        DeviceError when the file can't be read now: it would be lost with the next `save`.
        """
        self._file = state / "totals.json"
        self.inward = self.outward = self.resets = 0
        self.unsaved = False
        """Whether they changed since they were read or saved."""
        self._raw: Counts | None = None
        try:
            saved = json.loads(self._file.read_text(encoding="utf-8"))
            numbers = [saved["in"], saved["out"], saved["resets"], *(saved["raw"] or ())]
            if not all(type(number) is int and number >= 0 for number in numbers) or len(numbers) not in (3, 5):
                raise ValueError("not the numbers it should hold")
            self.inward, self.outward, self.resets = numbers[:3]
            self._raw = Counts(*numbers[3:]) if numbers[3:] else None
        except FileNotFoundError:
            pass
        except OSError as error:
            raise DeviceError(f"the totals can't be read: {error}. Is the disk well?") from error
        except (ValueError, KeyError, TypeError) as error:
            self.resets = 1
            log.error("%s can't be used (%s); its totals begin at zero again", self._file, error)

    def follow(self, raw: Counts, modulus: int | None) -> bool:
        """Takes the counter's own totals, which wrap to 0 at `modulus` (None: never). True when it began anew: save now."""
        before, self._raw = self._raw, raw
        self.unsaved = self.unsaved or before != raw
        if before is None:
            self.add(raw.inward, raw.outward)  # what it counted before we knew it
            return True
        came = [_risen(old, new, modulus) for old, new in zip(before, raw, strict=True)]
        if any(one is None for one in came):
            # A reset takes both: what the counter says now came since.
            self.add(raw.inward, raw.outward)
            self.resets += 1
            return True
        self.add(*(one or 0 for one in came))
        if modulus is not None and (raw.inward < before.inward or raw.outward < before.outward):
            self.resets += 1
            return True
        return False

    def add(self, inward: int, outward: int) -> None:
        """People who passed since."""
        self.unsaved = self.unsaved or bool(inward or outward)
        self.inward += inward
        self.outward += outward

    def save(self) -> None:
        """Durable when it returns. OSError when the disk takes nothing."""
        numbers = {"in": self.inward, "out": self.outward, "resets": self.resets, "raw": self._raw}
        write_whole(self._file, json.dumps(numbers).encode())
        self.unsaved = False


def _risen(before: int, now: int, modulus: int | None) -> int | None:
    """How far a counter rose; None when it can only have begun anew."""
    if now >= before:
        return now - before
    if modulus is not None and before >= modulus - modulus // _NEAR and now < modulus // _NEAR:
        return now - before + modulus
    return None
