"""Files of SQL: statements, each after a line ``-- name: <name>``. ``{{name}}`` stands for the part of that name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

_NAME_LINE: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_PART: Final = re.compile(r"\{\{(\w+)\}\}")
_NO_PARTS: Final[Mapping[str, str]] = MappingProxyType({})


def read_statements(path: Path, *, parts: Mapping[str, str] = _NO_PARTS) -> dict[str, str]:
    """The statements of a file, by name.

    Raises:
        ValueError: the file has a statement twice, or names a part that there is not.
        OSError: there is no such file.
    """
    _, *pieces = _NAME_LINE.split(path.read_text())
    found: dict[str, str] = {}
    for name, text in zip(pieces[::2], pieces[1::2], strict=True):
        if name in found:
            raise ValueError(f"{path.name} has the statement {name} twice")
        missing = set(_PART.findall(text)) - parts.keys()
        if missing:
            raise ValueError(f"{path.name}: the statement {name} has the unknown part {min(missing)}")
        found[name] = _PART.sub(lambda part: parts[part[1]], text.strip())
    return found
