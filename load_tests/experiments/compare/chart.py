"""Charts of lines and of bars as SVG, drawn with the colours of the page, so that they follow light, dark and print."""

from __future__ import annotations

import math
from html import escape
from typing import Final

from load_tests.experiments.compare.document import Chart

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 16, 44
_TICKS: Final = 5
_BAR, _BETWEEN_BARS, _NAMES = 14, 8, 270
"""In a chart of bars: the thickness of a bar, the room between the bars of two labels, and the room for the labels."""
COLOURS: Final = 6
"""Colours in the page's style. Further lines use them once more, dashed."""


def svg(chart: Chart) -> str:
    """The chart, with a title for those who cannot see it."""
    values = [value for line in chart.series.values() for value in line if value is not None]
    if chart.kind == "bars":
        return _bars(chart, max(values, default=0.0) or 1.0)
    top = _rounded_up(max(values, default=0.0))
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(_spoken(chart))}">',
        *_grid(chart, top),
        *(_line(number, line, len(chart.labels), top) for number, line in enumerate(chart.series.values())),
        "</svg>",
    ]
    return "".join(parts)


def _spoken(chart: Chart, form: str = ".1f") -> str:
    lines = []
    for name, line in chart.series.items():
        told = [
            f"{label}: {value:,{form}}" for label, value in zip(chart.labels, line, strict=True) if value is not None
        ]
        lines.append(f"{name}: {', '.join(told)}")
    return f"{chart.title}, {chart.unit}. {'; '.join(lines)}"


def _x(number: int, count: int) -> float:
    room = _WIDTH - _LEFT - _RIGHT
    return _LEFT + (room / 2 if count == 1 else room * number / (count - 1))


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / top


def _rounded_up(value: float) -> float:
    """Rounded up to one, two or five times a power of ten; never 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if value <= step * power)


def _grid(chart: Chart, top: float) -> list[str]:
    parts = []
    for tick in range(_TICKS + 1):
        value = top * tick / _TICKS
        y = _y(value, top)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        shown = f"{value:,.0f}" if top >= 10 else f"{value:g}"
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{shown}</text>')
    for number, label in enumerate(chart.labels):
        x = _x(number, len(chart.labels))
        # The last one ends at the edge: a long one would be cut off there.
        anchor = "end" if number and number == len(chart.labels) - 1 else "middle"
        x += _RIGHT if anchor == "end" else 0
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="{anchor}">{escape(label)}</text>')
    return parts


def _line(number: int, line: object, count: int, top: float) -> str:
    assert isinstance(line, list | tuple)
    points = [(_x(place, count), _y(value, top)) for place, value in enumerate(line) if value is not None]
    path = " ".join(f"{'M' if not place else 'L'}{x:.1f},{y:.1f}" for place, (x, y) in enumerate(points))
    dashed = ' stroke-dasharray="6 4"' if number >= COLOURS else ""
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in points)
    return f'<g class="line c{number % COLOURS}"><path d="{path}"{dashed}/>{dots}</g>'


def _bars(chart: Chart, top: float) -> str:
    per_label = _BAR * len(chart.series) + _BETWEEN_BARS
    # The figure stands behind its bar.
    room = _WIDTH - _NAMES - _RIGHT - _LEFT
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {per_label * len(chart.labels)}" role="img" '
        f'aria-label="{escape(_spoken(chart, ".2f"))}">'
    ]
    for place, label in enumerate(chart.labels):
        y = place * per_label + _BETWEEN_BARS / 2
        middle = y + _BAR * len(chart.series) / 2 + 4
        parts.append(f'<text x="{_NAMES - 8}" y="{middle:.1f}" text-anchor="end">{escape(label)}</text>')
        for number, line in enumerate(chart.series.values()):
            value = line[place]
            if value is None:
                continue
            width, at = room * value / top, y + number * _BAR
            parts.append(
                f'<rect class="bar k{number % COLOURS}" x="{_NAMES}" y="{at:.1f}" width="{width:.1f}" height="{_BAR}"/>'
                f'<text x="{_NAMES + width + 6:.1f}" y="{at + _BAR - 3:.1f}">{value:,.2f}</text>'
            )
    return "".join([*parts, "</svg>"])
