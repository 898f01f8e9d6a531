"""Room on the gateway's disk that series and pictures leave alone, so that the state database can go on: traps ring by it."""

from pathlib import Path
from shutil import disk_usage
from time import monotonic

RESERVE_MIB = 256
ASK_EVERY_S = 1.0
"""The disk is asked no more often than this: every write and every piece of a picture comes by here."""


class Reserve:
    """Free space that is kept on the disk of one folder. Any thread may ask; at worst two ask the disk at once."""

    def __init__(self, folder: Path, reserve_mib: int) -> None:
        """`reserve_mib` 0: nothing is kept."""
        self._folder, self._reserve_mib = folder, reserve_mib
        self._asked: tuple[float, str | None] | None = None  # by the monotonic clock, and what came of it

    def shortage(self) -> str | None:
        """What is wrong, and what to do about it; None while there is room."""
        asked, now = self._asked, monotonic()
        if asked is None or now - asked[0] >= ASK_EVERY_S:
            asked = self._asked = (now, self._ask())
        return asked[1]

    def _ask(self) -> str | None:
        try:
            free = disk_usage(self._folder).free
        except OSError as error:
            return f"nobody can say how much is free on {self._folder}: {error}. Is its disk mounted?"
        if free >= self._reserve_mib * 2**20:
            return None
        return (
            f"less than {self._reserve_mib} MiB free on {self._folder}: {free // 2**20} MiB are left, and kept for alarms. "
            "Make room there."
        )
