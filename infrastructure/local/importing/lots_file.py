"""Reads lots from a file: CSV with a head line, or JSON lines. Each lot becomes the JSON of ``POST /api/v1/items``.

A lot without an id gets one out of its content, so a second run of the same file creates nothing twice. Of lots with
the same content each has an id of its own, by their order.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Raw

LINES_MAX: Final = 1_000_000
"""Lots of one file: each id is kept in memory."""
LOT_BYTES_MAX: Final = 60_000

_TEXTS: Final = ("id", "name", "description", "currency", "seller_id", "start_time", "end_time")
_AMOUNTS: Final = ("start_price", "reserve_price", "buy_now_price")
_FLAG: Final = "approval_required"
_GROUPS: Final = {
    "increment": {"kind": False, "value": True},
    "soft_close": {"trigger_s": True, "extend_s": True, "mode": False, "max_count": True, "hard_end": False},
}
"""Columns ``<group>_<member>``, and whether the member is a number."""
_IMAGES: Final = "image_urls"
"""A column whose cells are addresses, with blanks between them."""
COLUMNS: Final = (
    *_TEXTS,
    _IMAGES,
    *_AMOUNTS,
    "duration_s",
    _FLAG,
    *(f"{group}_{member}" for group, members in _GROUPS.items() for member in members),
)
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")

Fields = dict[str, object]
_lines_decoder: Final = msgspec.json.Decoder(dict[str, Raw])


@dataclass(frozen=True, slots=True)
class Lot:
    """One lot: the line on which it begins, counted from 1, its id, and its JSON."""

    line: int
    item_id: str
    body: bytes


class LineWrong(Exception):
    """What is wrong with one line; ``str(error)`` says what to do."""

    def __init__(self, line: int, text: str) -> None:
        self.line = line
        super().__init__(f"line {line}: {text}")


class FileWrong(Exception):
    """No lots can be read from the file."""


def read_lots(path: Path) -> Iterator[Lot | LineWrong]:
    """The lots of a file, in order; in the place of a wrong one, what is wrong with it.

    Raises:
        FileWrong: it is no such file, or has too many lines.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _csv_rows(file) if path.suffix.lower() == ".csv" else _json_rows(file)
            yield from _identified(rows)
    except OSError as error:
        raise FileWrong(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FileWrong(f"{path} is not UTF-8: {error.reason}; save it as UTF-8") from error
    except csv.Error as error:
        raise FileWrong(f"{path} is no CSV: {error}") from error


def _identified(rows: Iterator[tuple[int, Fields] | LineWrong]) -> Iterator[Lot | LineWrong]:
    lines: dict[str, int] = {}
    same: Counter[bytes] = Counter()
    for count, row in enumerate(rows):
        if count >= LINES_MAX:
            raise FileWrong(f"the file has more than {LINES_MAX:,} lots; split it")
        if isinstance(row, LineWrong):
            yield row
            continue
        line, fields = row
        try:
            item_id = _id_of(line, fields, same)
        except LineWrong as error:
            yield error
            continue
        first = lines.setdefault(item_id, line)
        body = msgspec.json.encode({**fields, "id": item_id})
        if first != line:
            yield LineWrong(line, f"the id {item_id!r} is that of line {first}")
        elif len(body) > LOT_BYTES_MAX:
            yield LineWrong(line, f"the lot has {len(body):,} bytes; at most {LOT_BYTES_MAX:,} are possible")
        else:
            yield Lot(line, item_id, body)


def _id_of(line: int, fields: Fields, same: Counter[bytes]) -> str:
    given = fields.get("id")
    if isinstance(given, Raw):
        try:
            given = msgspec.json.decode(given, type=str | None)
        except msgspec.DecodeError:
            raise LineWrong(line, "id: must be a text") from None
    if given is not None:
        return str(given)
    fields.pop("id", None)
    content = blake2b(msgspec.json.encode(dict(sorted(fields.items()))), digest_size=12).digest()
    same[content] += 1
    return f"lot-{content.hex()}" + (f"-{same[content]}" if same[content] > 1 else "")


def _csv_rows(file: Iterator[str]) -> Iterator[tuple[int, Fields] | LineWrong]:
    reader = csv.reader(file, strict=True)
    head = [name.strip() for name in next(reader, [])]
    _check_head(head)
    line = reader.line_num + 1
    for cells in reader:
        here, line = line, reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(head):
            yield LineWrong(here, f"it has {len(cells)} cells, and the head line has {len(head)}")
            continue
        try:
            yield here, _fields_of(here, dict(zip(head, cells, strict=True)))
        except LineWrong as error:
            yield error


def _check_head(head: list[str]) -> None:
    if "name" not in head:
        raise FileWrong(f"line 1: there is no column name; columns are {', '.join(COLUMNS)}")
    for name in head:
        if name not in COLUMNS:
            close = difflib.get_close_matches(name, COLUMNS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"columns are {', '.join(COLUMNS)}"
            raise FileWrong(f"line 1: {name!r} is no column; {hint}")
        if head.count(name) > 1:
            raise FileWrong(f"line 1: the column {name} is there twice")


def _fields_of(line: int, cells: dict[str, str]) -> Fields:
    """An empty cell is the same as none."""
    fields: Fields = {}
    for name, cell in cells.items():
        if not cell.strip():
            continue
        if name == _IMAGES:
            fields[name] = cell.split()
            continue
        group = next((group for group in _GROUPS if name.startswith(f"{group}_")), None)
        if name == _FLAG:
            fields[name] = _flag(line, cell)
        elif group is None:
            fields[name] = cell if name in _TEXTS else _number(line, name, cell)
        else:
            member = name.removeprefix(f"{group}_")
            inner = fields.setdefault(group, {})
            assert isinstance(inner, dict)
            inner[member] = _number(line, name, cell) if _GROUPS[group][member] else cell.strip()
    return fields


def _flag(line: int, cell: str) -> Raw:
    text = cell.strip().lower()
    if text not in ("true", "false"):
        raise LineWrong(line, f"{_FLAG}: {cell.strip()[:40]!r} is neither true nor false")
    return Raw(text.encode())


def _number(line: int, name: str, cell: str) -> Raw:
    """The number as its text, unchanged: amounts are exact."""
    text = cell.strip()
    if _NUMBER.fullmatch(text) is None:
        raise LineWrong(line, f"{name}: {text[:40]!r} is no number; write for example 1234.50")
    return Raw(text.encode())


def _json_rows(file: Iterator[str]) -> Iterator[tuple[int, Fields] | LineWrong]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            yield line, dict(_lines_decoder.decode(text))
        except (msgspec.DecodeError, RecursionError) as error:
            yield LineWrong(line, f'{error}; write one JSON object per line, for example {{"name": "Desk lamp"}}')
