"""CSV, for everything that leaves as a table. RFC 4180: comma, double quotes, CRLF; UTF-8.

A spreadsheet takes text that begins with = + - @ for a formula, and runs it on the desk of who opens the file; what somebody
typed as a visit's note could be one. Such text gets an apostrophe before it, as spreadsheets themselves write text that is none.
Numbers stay numbers.

The file begins with a byte order mark: without it, Excel on a Japanese Windows reads UTF-8 as Shift_JIS.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence

Cell = str | int | float | None
"""None is an empty cell: not known."""

MEDIA_TYPE = "text/csv; charset=utf-8; header=present"
BOM = "\ufeff"

_ignored = r"[\s\0\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]*"
"""What a spreadsheet, or an eye, passes over at the beginning of a cell."""
_formula = re.compile(rf"{_ignored}[=+\-@'＝＋－＠﹢﹣﹦﹫−⁼⁺⁻|%]")
_TAB_OR_RETURN = ("\t", "\r", "\n")
_controls = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Iterator[bytes]:
    """The file in parts of some 64 KiB. ValueError for a row of another length, or a number that is none."""
    text = io.StringIO(newline="")
    text.write(BOM)
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([safe(name) for name in columns])
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"a row has {len(row)} cells, the table {len(columns)} columns")
        writer.writerow([_written(cell) for cell in row])
        if text.tell() > 64 * 1024:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode()


def whole(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> bytes:
    """The file at once."""
    return b"".join(table(columns, rows))


def safe(said: str) -> str:
    """Text that no spreadsheet takes for a formula. Lines end with \\n; control characters become U+FFFD."""
    said = _controls.sub("\ufffd", said.replace("\r\n", "\n").replace("\r", "\n"))
    return f"'{said}" if _formula.match(said) or said.startswith(_TAB_OR_RETURN) else said


def plain(cell: str) -> str:
    """What was written by `safe`, as it was: for programs that read our files."""
    return cell.removeprefix("'")


def _written(cell: Cell) -> str | int | float:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and not math.isfinite(cell):
        raise ValueError(f"{cell} is no number that a table can hold")
    return safe(cell) if isinstance(cell, str) else cell
