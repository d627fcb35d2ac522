"""The one sheet of an Excel workbook: written as LLaVA's submissions are (inline strings), read from any program.

Numbers and text are all that a benchmark's table holds; that is a few lines of XML in a zip (ECMA-376, part 1, 18.3).
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from llavakit.base.errors import BadRequest

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml" />'
    '<Default Extension="xml" ContentType="application/xml" />'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPE}.sheet.main+xml" />'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_TYPE}.worksheet+xml" />'
    f'<Override PartName="/xl/styles.xml" ContentType="{_TYPE}.styles+xml" /></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml" /></Relationships>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml" />'
    f'<Relationship Id="rId2" Type="{_OFFICE}/styles" Target="styles.xml" /></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>'
    '<sheet name="Sheet1" sheetId="1" r:id="rId1" /></sheets></workbook>',
    # Format 1 is the head's: bold, boxed and centred.
    "xl/styles.xml": f'<styleSheet xmlns="{_MAIN}"><fonts count="2"><font><name val="Calibri" /><sz val="11" /></font>'
    '<font><b val="1" /></font></fonts><fills count="2"><fill><patternFill /></fill>'
    '<fill><patternFill patternType="gray125" /></fill></fills>'
    '<borders count="2"><border /><border><left style="thin" /><right style="thin" /><top style="thin" />'
    '<bottom style="thin" /></border></borders><cellStyleXfs count="1"><xf /></cellStyleXfs>'
    '<cellXfs count="2"><xf fontId="0" borderId="0" /><xf fontId="1" borderId="1" applyAlignment="1">'
    '<alignment horizontal="center" vertical="top" /></xf></cellXfs></styleSheet>',
}
# What XML can not hold; openpyxl refuses such a cell, and with it the whole submission.
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_LONGEST = 32_767

Cell = str | int | None


def workbook(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> bytes:
    """A workbook with one sheet. Raises :class:`BadRequest` for a cell that Excel can not hold."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in (_PARTS | {"xl/worksheets/sheet1.xml": sheet(head, rows)}).items():
            # A fixed time: the same answers give the same bytes.
            file.writestr(zipfile.ZipInfo(name, (2023, 10, 11, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def sheet(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> bytes:
    """The XML of a sheet, byte for byte as LLaVA's uploads have it."""
    lines = [_line(number, row, number == 1) for number, row in enumerate([head, *rows], 1)]
    text = (
        f'<worksheet xmlns="{_MAIN}"><sheetPr><outlinePr summaryBelow="1" summaryRight="1" /><pageSetUpPr /></sheetPr>'
        f'<dimension ref="A1:{_column(len(head) - 1)}{len(lines)}" /><sheetViews><sheetView workbookViewId="0">'
        '<selection activeCell="A1" sqref="A1" /></sheetView></sheetViews>'
        f'<sheetFormatPr baseColWidth="8" defaultRowHeight="15" /><sheetData>{"".join(lines)}</sheetData>'
        '<pageMargins left="0.75" right="0.75" top="1" bottom="1" header="0.5" footer="0.5" /></worksheet>'
    )
    return text.encode("ascii", "xmlcharrefreplace")


def read_sheet(path: Path) -> list[dict[str, str]]:
    """The rows of a workbook's first sheet by the names in its head, all cells as text."""
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
            shared = _strings(file.read("xl/sharedStrings.xml")) if "xl/sharedStrings.xml" in names else []
            root = ElementTree.fromstring(file.read("xl/worksheets/sheet1.xml"))
    except (zipfile.BadZipFile, KeyError, ElementTree.ParseError) as error:
        raise BadRequest(f"{path} is no Excel workbook that can be read: {error}") from None
    rows = []
    for row in root.iter(f"{{{_MAIN}}}row"):
        rows.append({re.sub(r"\d", "", cell.get("r", "")): _text(cell, shared) for cell in row})
    head = rows[0] if rows else {}
    return [{name: row.get(column, "") for column, name in head.items()} for row in rows[1:]]


def _line(number: int, row: Sequence[Cell], head: bool) -> str:
    style = ' s="1"' if head else ""
    cells = []
    for index, value in enumerate(row):
        place = f'<c r="{_column(index)}{number}"{style}'
        if value is None or value == "":
            cells.append(f'{place} t="inlineStr" />')
        elif isinstance(value, int):
            cells.append(f'{place} t="n"><v>{value}</v></c>')
        else:
            if _ILLEGAL.search(value) or len(value) > _LONGEST:
                raise BadRequest(f"row {number}: {value[:60]!r} can not stand in an Excel cell")
            space = ' xml:space="preserve"' if value != value.strip() else ""
            cells.append(f'{place} t="inlineStr"><is><t{space}>{escape(value)}</t></is></c>')
    return f'<row r="{number}">{"".join(cells)}</row>'


def _column(index: int) -> str:
    """0 -> A, 25 -> Z, 26 -> AA."""
    before, last = divmod(index, 26)
    return (_column(before - 1) if before else "") + chr(ord("A") + last)


def _strings(xml: bytes) -> list[str]:
    items = ElementTree.fromstring(xml).iter(f"{{{_MAIN}}}si")
    return ["".join(text.text or "" for text in item.iter(f"{{{_MAIN}}}t")) for item in items]


def _text(cell: ElementTree.Element, shared: Sequence[str]) -> str:
    if cell.get("t") == "inlineStr":
        return "".join(text.text or "" for text in cell.iter(f"{{{_MAIN}}}t"))
    value = cell.findtext(f"{{{_MAIN}}}v") or ""
    return shared[int(value)] if cell.get("t") == "s" else value
