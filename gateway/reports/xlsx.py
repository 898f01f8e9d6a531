"""A sheet as a spreadsheet, Office Open XML. Words are written as words: nothing in it is a formula, a link or a macro."""

import io
import re
from datetime import UTC, datetime

import xlsxwriter

from gateway.reports.sheet import Cell, Sheet

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

_controls = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_not_in_a_name = re.compile(r"[\[\]:*?/\\']")
_LONGEST_CELL = 32_767


def xlsx_of(sheet: Sheet) -> bytes:
    """The first worksheet has heading and sentence; each table has one of its own. The same sheet gives the same bytes."""
    file = io.BytesIO()
    book = xlsxwriter.Workbook(file, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False,
                                      "strings_to_numbers": False})  # fmt: skip
    book.set_properties({"title": sheet.title, "created": datetime(2000, 1, 1, tzinfo=UTC).replace(tzinfo=None)})
    bold = book.add_format({"bold": True})
    first = book.add_worksheet(_name(sheet.title))
    for row, words in enumerate((sheet.title, sheet.sentence, *sheet.notes)):
        _write(first, row, 0, words, bold if row == 0 else None)
    first.set_column(0, 0, 80)
    for table in sheet.tables:
        page = book.add_worksheet(_name(table.title))
        page.set_column(0, 0, 24)
        page.set_column(1, len(table.columns), 16)
        page.freeze_panes(1, 1)
        for row, cells in enumerate((table.columns, *table.rows)):
            for column, cell in enumerate(cells):
                _write(page, row, column, cell, bold if row == 0 else None)
    book.close()
    return file.getvalue()


def _write(page: xlsxwriter.worksheet.Worksheet, row: int, column: int, cell: Cell, form: object) -> None:
    if isinstance(cell, str):
        page.write_string(row, column, _controls.sub("\ufffd", cell)[:_LONGEST_CELL], form)
    else:
        page.write_number(row, column, cell, form)


def _name(title: str) -> str:
    """A worksheet's: 31 characters at most, some of them forbidden."""
    return _not_in_a_name.sub(" ", title)[:31].strip()
