"""A report as data, before it is HTML or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are texts; those of the columns numbered in ``left`` are aligned to the left, the others to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: frozenset[int] = frozenset({0})


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over steps, or bars. ``series`` maps a name to a value for each label, None where there is none."""

    title: str
    unit: str
    labels: Sequence[str]
    series: dict[str, Sequence[float | None]]
    kind: Literal["lines", "bars"] = "lines"


@dataclass(slots=True)
class Section:
    """A heading with what was found (sentences), tables and charts."""

    title: str
    findings: list[str] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


@dataclass(slots=True)
class Document:
    """A whole report."""

    title: str
    summary: list[str]
    sections: list[Section]
