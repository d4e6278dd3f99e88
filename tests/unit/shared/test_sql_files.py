"""Files of several statements, and parts that several of them have."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.archive_reads.statements import statements
from shared.sql_files import read_statements


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.sql"


def test_a_part_is_put_wherever_it_is_named(file: Path) -> None:
    file.write_text("-- for all\n-- name: one\nSELECT {{now}}, {{now}};\n\n-- name: two\nSELECT 2;\n")
    assert read_statements(file, parts={"now": "now()"}) == {"one": "SELECT now(), now();", "two": "SELECT 2;"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-- name: one\nSELECT {{now}};\n", "some.sql: the statement one has the unknown part now"),
        ("-- name: one\nSELECT 1;\n-- name: one\nSELECT 2;\n", "some.sql has the statement one twice"),
    ],
)
def test_what_is_wrong_is_told(file: Path, text: str, complaint: str) -> None:
    file.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        read_statements(file)


def test_no_statement_of_the_archive_is_left_with_a_name_of_a_part() -> None:
    for name in ("closed", "feed", "keyed", "rebuild"):
        assert statements(name)
        assert not [text for text in statements(name).values() if "{{" in text]
