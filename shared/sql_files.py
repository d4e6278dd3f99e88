"""Files of SQL: several statements, each after a line ``-- name: <name>``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_NAME_LINE: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def read_statements(path: Path) -> dict[str, str]:
    """The statements of a file, by name.

    Raises:
        ValueError: the file has a statement twice.
        OSError: there is no such file.
    """
    _, *parts = _NAME_LINE.split(path.read_text())
    found: dict[str, str] = {}
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        if name in found:
            raise ValueError(f"{path.name} has the statement {name} twice")
        found[name] = text.strip()
    return found
