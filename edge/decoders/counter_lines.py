"""A counter box that prints its counts as a line of text on RS-232, in whatever words: a pattern tells where the numbers stand.

Such boxes have no common format and mostly no published one, so the operator copies it from a line that the box prints. Nothing
in a line can tell that it was damaged, unless the pattern does: a line must match as a whole, and is ASCII. Of totals, the lines
around it tell (`Agreed`). A line ends with CR, LF or both.
"""

import re
from typing import NamedTuple

MAX_LINE = 200
"""Longest line in bytes; what is longer is no counter's."""

MAX_DIGITS = 12


_GROUPS_ALONE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]")
"""What in a pattern may look like the end of a group and is none: an escaped character, a class of characters."""


class LineCounts(NamedTuple):
    """What one line says; a direction that the box does not tell is 0."""

    inward: int
    outward: int


def compile_pattern(text: str) -> re.Pattern[str]:
    """A regular expression with the groups `in` and, where there is one, `out`. ValueError that says what is wrong with it."""
    # Python's names of groups may not be keywords: `in` is one to us only.
    try:
        pattern = re.compile(text.replace("(?P<in>", "(?P<inward>").replace("(?P<out>", "(?P<outward>"), re.ASCII)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    if "inward" not in pattern.groupindex or set(pattern.groupindex) - {"inward", "outward"}:
        raise ValueError(r"needs a group (?P<in>\d+), may have (?P<out>\d+), and has no other names")
    if re.search(r"\)[+*{]", _GROUPS_ALONE.sub("", text)):
        raise ValueError("repeats a group, which can take for ever on a damaged line; write it plainly")
    return pattern


class LineStream:
    """Cuts a byte stream into lines and reads those that match."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.bad = 0
        """Lines that do not match, or are too long."""
        self._pattern = pattern
        self._begun = b""
        self._first = True  # what the port gives first is a line cut anywhere

    def feed(self, chunk: bytes) -> list[LineCounts]:
        """The counts of the lines that end in this chunk."""
        counts: list[LineCounts] = []
        *ended, self._begun = (self._begun + chunk).replace(b"\r", b"\n").split(b"\n")
        for line in ended:
            first, self._first = self._first, False
            if not line:
                continue
            found = self._read(line)
            if found is not None:
                # Cut off at its front, a number reads as a smaller one.
                if not first:
                    counts.append(found)
            elif not first:
                self.bad += 1
        if len(self._begun) > MAX_LINE:
            self._begun = b""
            self._first = True  # what is left of it is no line of its own
            self.bad += 1
        return counts

    def _read(self, line: bytes) -> LineCounts | None:
        if len(line) > MAX_LINE or not line.isascii():
            return None
        match = self._pattern.fullmatch(line.decode("ascii"))
        if match is None:
            return None
        groups = {name: value or "0" for name, value in match.groupdict().items()}
        if not all(value.isdecimal() and len(value) <= MAX_DIGITS for value in groups.values()):
            return None
        return LineCounts(int(groups["inward"]), int(groups.get("outward", "0")))


class Agreed:
    """Which totals of a box to believe: one that rose is believed when the next line is not below it again.

    After a fall (the box began anew, or a digit was damaged), and at the start, it takes a third line.
    """

    def __init__(self) -> None:
        self._believed: LineCounts | None = None
        self._row: list[LineCounts] = []  # the last lines, none below the one before

    def heard(self, line: LineCounts) -> LineCounts | None:
        """The newest totals that can be believed by now; None when there is nothing to believe in this line."""
        if self._row and not _goes_on(self._row[-1], line):
            self._row.clear()
        self._row.append(line)
        usual = self._believed is not None and _goes_on(self._believed, self._row[0])
        if len(self._row) < (2 if usual else 3):
            return None
        self._believed, self._row = self._row[-2], self._row[-1:]
        return self._believed


def _goes_on(before: LineCounts, line: LineCounts) -> bool:
    return line.inward >= before.inward and line.outward >= before.outward
