"""Files of lots: what they become, and what is said of each wrong line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from infrastructure.local.importing import lots_file
from infrastructure.local.importing.lots_file import FileWrong, LineWrong, Lot, read_lots
from infrastructure.local.importing.sender import TOGETHER_BYTES_MAX, TOGETHER_MAX, groups


def read(folder: Path, text: str | bytes, name: str = "lots.csv") -> list[Lot | LineWrong]:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_lots(path))


def bodies(found: list[Lot | LineWrong]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(lot.body) for lot in found if isinstance(lot, Lot)]


def test_a_csv_becomes_what_the_api_takes(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "\ufeffid,name,start_price,duration_s,increment_kind,increment_value,soft_close_trigger_s,soft_close_extend_s\n"
        'lamp,"A lamp,\nof brass",12.50,3600,flat,0.50,60,120\n'
        "\n"
        "vase,A vase,,,,,,\n",
    )
    assert [(lot.line, lot.item_id) for lot in found if isinstance(lot, Lot)] == [(2, "lamp"), (5, "vase")]
    lamp, vase = bodies(found)
    assert vase == {"id": "vase", "name": "A vase"}
    assert lamp["name"] == "A lamp,\nof brass"
    assert (lamp["increment"], lamp["soft_close"]) == (
        {"kind": "flat", "value": 0.5},
        {"trigger_s": 60, "extend_s": 120},
    )
    assert b'"start_price":12.50' in found[0].body, "amounts stay as they stand"  # type: ignore[union-attr]


def test_a_cell_of_addresses_becomes_a_list(tmp_path: Path) -> None:
    one, two = bodies(read(tmp_path, "name,image_urls\nA vase,/images/a.jpg  https://x.example/b.png\nA jar,\n"))
    assert one["image_urls"] == ["/images/a.jpg", "https://x.example/b.png"]
    assert "image_urls" not in two
    (lines,) = bodies(read(tmp_path, '{"name": "A vase", "image_urls": ["/images/a.jpg"]}', "lots.jsonl"))
    assert lines["image_urls"] == ["/images/a.jpg"]


def test_lots_without_ids_have_the_same_ones_in_every_run(tmp_path: Path) -> None:
    text = "name,start_price\nA vase,1\nA lamp,2\nA vase,1\n"
    ids = [lot.item_id for lot in read(tmp_path, text) if isinstance(lot, Lot)]
    assert len(set(ids)) == 3
    assert ids[2] == f"{ids[0]}-2"
    # Another line in between changes no other id.
    again = [lot.item_id for lot in read(tmp_path, "name,start_price\nA jar,3\n" + text.split("\n", 1)[1])]  # type: ignore[union-attr]
    assert again[1:] == ids


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('name,start_price\nA vase,1\nA lamp,"1,5"\n', 3, "'1,5' is no number"),
        ("name,start_price\nA vase\n", 2, "it has 1 cells"),
        ("id,name\na,A vase\nb,A jar\na,A lamp\n", 4, "that of line 2"),
        ("name,description\nA vase," + "x" * 60_001 + "\n", 2, "at most 60,000"),
    ],
)
def test_wrong_lines_are_named_and_the_others_read(tmp_path: Path, text: str, line: int, says: str) -> None:
    (error,) = [each for each in read(tmp_path, text) if isinstance(each, LineWrong)]
    assert error.line == line
    assert str(error).startswith(f"line {line}: ")
    assert says in str(error)


def test_json_lines(tmp_path: Path) -> None:
    text = '{"id":"a","name":"A vase","start_price":1.10}\n\n{"name"\n["x"]\n{"id":7,"name":"x"}\n{"name":"A jar"}\n'
    found = read(tmp_path, text, "lots.json")
    wrong = [(each.line, str(each)) for each in found if isinstance(each, LineWrong)]
    assert [line for line, _ in wrong] == [3, 4, 5]
    assert "one JSON object per line" in wrong[0][1]
    assert [lot.line for lot in found if isinstance(lot, Lot)] == [1, 6]
    assert b"1.10" in found[0].body  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("title\nA vase\n", "no column name"),
        ("name,start_prise\nA vase,1\n", "did you mean start_price"),
        ("name,name\nA,B\n", "twice"),
        (b"name\n\xff\n", "not UTF-8"),
        ("", "no column name"),
        ('name\n"A vase\n', "no CSV"),
    ],
)
def test_what_is_no_file_of_lots(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(FileWrong, match=says):
        read(tmp_path, text)


def test_a_file_is_bounded_and_so_is_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lots_file, "LINES_MAX", 3)
    with pytest.raises(FileWrong, match="split it"):
        read(tmp_path, "name\na\nb\nc\nd\n")
    small = [Lot(1, "a", b"x")] * (TOGETHER_MAX + 1)
    assert [len(group) for group in groups(small)] == [TOGETHER_MAX, 1]
    large = [Lot(1, "a", b"x" * (TOGETHER_BYTES_MAX // 2))] * 3
    assert [len(group) for group in groups(large)] == [2, 1]
