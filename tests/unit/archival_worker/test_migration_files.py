"""Migration files are numbered without a gap, and changed ones are noticed by their checksum."""

from __future__ import annotations

from pathlib import Path

import pytest

from archival_worker.errors import MigrationError
from archival_worker.store.migrate import read_migrations


def test_the_projects_own_files_are_in_order() -> None:
    migrations = read_migrations()
    assert [migration.version for migration in migrations] == list(range(1, len(migrations) + 1))
    assert migrations[0].name == "0001_archive.sql"


@pytest.mark.parametrize(
    "names", [["0002_b.sql"], ["0001_a.sql", "0003_c.sql"], ["0001_a.sql", "0001_b.sql"], ["1_a.sql"]]
)
def test_a_gap_or_a_bad_name_is_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(MigrationError, match="migration"):
        read_migrations(tmp_path)


def test_the_checksum_is_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "0001_a.sql"
    path.write_text("SELECT 1;")
    before = read_migrations(tmp_path)[0].checksum
    path.write_text("SELECT 2;")
    assert read_migrations(tmp_path)[0].checksum != before
