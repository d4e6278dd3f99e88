"""The statements of this folder's ``sql/*.sql``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from shared.sql_files import read_statements

_FOLDER: Final = Path(__file__).parent / "sql"
_PARTS: Final = read_statements(_FOLDER / "parts.sql")


def statements(file: str) -> dict[str, str]:
    """The statements of ``<file>.sql``, by name."""
    return read_statements(_FOLDER / f"{file}.sql", parts=_PARTS)
