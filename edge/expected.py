"""What rotating tags will call themselves, as the gateway said: kept over restarts and outages. Identifiers, never keys."""

import logging
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path

from edge.clock import Instant
from edge.contract.remote import Expected
from edge.durable import write_whole

log = logging.getLogger(__name__)


class ExpectedTags:
    """The newest list and what of it holds at a moment."""

    def __init__(self, path: Path) -> None:
        """Begins with the list in `path`, if there is one; a file that can't be read is as none, and said so."""
        self._path = path
        self._expected: Expected | None = None
        self._bounds_us: list[int] = []  # where the answer changes
        self._from_us = self._until_us = 0  # where `_now` holds
        self._now: dict[bytes, str] = {}
        try:
            self._take(Expected.model_validate_json(path.read_bytes()))
        except FileNotFoundError:
            pass  # the gateway has not said any yet
        except (OSError, ValueError) as error:
            first = str(error).splitlines()[0]
            log.error("%s can't be read (%s): rotating tags are foreign until the gateway says again who they are", path, first)

    @property
    def revision(self) -> int:
        """Of the list in use; 0 when there is none."""
        return self._expected.revision if self._expected else 0

    def update(self, expected: Expected) -> bool:
        """Takes a list that the gateway signed for this node, if its revision is higher; tells whether it was.

        It is durable when this returns. OSError when it can't be written; it is in use then all the same.
        """
        if expected.revision <= self.revision:
            return False
        self._take(expected)
        write_whole(self._path, expected.model_dump_json().encode())
        return True

    def at(self, now: Instant) -> Mapping[bytes, str]:
        """Eddystone-EID (8 bytes) -> the tag's name, of those that hold at `now` by the wall clock. For `Site.expected`."""
        if not self._from_us <= now.utc_us < self._until_us:
            self._turn_to(now.utc_us)
        return self._now

    def _take(self, expected: Expected) -> None:
        self._expected = expected
        self._bounds_us = sorted({bound for _, _, begin, end in expected.tags for bound in (begin, end)})
        self._from_us = self._until_us = 0

    def _turn_to(self, utc_us: int) -> None:
        """Makes the answer for the window around a moment; asked for each advertisement, it changes some times an hour."""
        if self._expected is None:
            self._now, self._from_us, self._until_us = {}, -(2**62), 2**62
            return
        at = bisect_right(self._bounds_us, utc_us)
        self._from_us = self._bounds_us[at - 1] if at else -(2**62)
        self._until_us = self._bounds_us[at] if at < len(self._bounds_us) else 2**62
        self._now = {bytes.fromhex(eid): tag for eid, tag, begin, end in self._expected.tags if begin <= utc_us < end}
