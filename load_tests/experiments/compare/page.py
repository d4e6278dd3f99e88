"""The report as one HTML page: no script, nothing from elsewhere, light and dark, and fit for paper."""

from __future__ import annotations

import re
from html import escape
from typing import Final

from load_tests.experiments.compare.chart import COLOURS, svg
from load_tests.experiments.compare.document import Chart, Document, Section, Table

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --page: #ffffff; --line: #d8dee4; --band: #f6f8fa;
  --good: #116329; --bad: #a40e26; --none: #57606a;
  --c0: #0550ae; --c1: #bc4c00; --c2: #116329; --c3: #8250df; --c4: #bf3989; --c5: #7d6608; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --page: #0d1117; --line: #30363d;
  --band: #161b22; --good: #57c278; --bad: #ff7b72; --none: #9198a1;
  --c0: #79b8ff; --c1: #ffa657; --c2: #57c278; --c3: #d2a8ff; --c4: #ff9bce; --c5: #e3c454; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #333; --page: #fff; --line: #bbb; --band: #fff; }
  section { break-inside: avoid-page; } body { max-width: none; padding: 0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.3rem; margin: 2.75rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
p, ul { max-width: 48rem; } .summary { font-size: 1.08rem; } nav ul { columns: 2; padding-left: 1.1rem; }
a { color: var(--c0); }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { color: var(--soft); font-weight: 600; } .left { text-align: left; }
tbody tr:nth-child(even) { background: var(--band); }
.charts { display: grid;
  grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1.5rem; margin: 1.25rem 0; }
figure { margin: 0; } figcaption { font-weight: 600; font-size: .92rem; } figcaption small { color: var(--soft); }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--soft); font-size: 12px; }
.grid { stroke: var(--line); } .line path { fill: none; stroke-width: 2.25; }
.legend { list-style: none; padding: 0; margin: .25rem 0; display: flex; flex-wrap: wrap; gap: .2rem 1rem;
  font-size: .84rem; } .legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px;
  margin-right: .35rem; vertical-align: -1px; }
.reproduced { color: var(--good); font-weight: 600; } .refuted { color: var(--bad); font-weight: 600; }
.untestable { color: var(--none); font-weight: 600; }
"""
_STATUS: Final = ("reproduced", "refuted", "untestable")


def html(document: Document) -> str:
    """The whole page."""
    colours = "".join(
        f".c{number} path{{stroke:var(--c{number})}}.c{number} circle,.k{number}{{fill:var(--c{number});"
        f"background:var(--c{number})}}"
        for number in range(COLOURS)
    )
    links = "".join(f'<li><a href="#{_anchor(each)}">{escape(each.title)}</a></li>' for each in document.sections)
    body = "".join(_section(section) for section in document.sections)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(document.title)}</title><style>{_STYLE}{colours}</style></head><body>"
        f"<header><h1>{escape(document.title)}</h1>{_paragraphs(document.summary, 'summary')}"
        f"<nav><ul>{links}</ul></nav></header><main>{body}</main></body></html>\n"
    )


def _anchor(section: Section) -> str:
    return re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")


def _section(section: Section) -> str:
    charts = "".join(_figure(chart) for chart in section.charts)
    return (
        f'<section id="{_anchor(section)}"><h2>{escape(section.title)}</h2>{_paragraphs(section.findings)}'
        f"{f'<div class=charts>{charts}</div>' if charts else ''}"
        f"{''.join(_table(table) for table in section.tables)}</section>"
    )


def _paragraphs(sentences: list[str], kind: str = "") -> str:
    return f'<ul class="{kind}">{"".join(f"<li>{escape(text)}</li>" for text in sentences)}</ul>' if sentences else ""


def _figure(chart: Chart) -> str:
    legend = "".join(
        f'<li><i class="k{number % COLOURS}"></i>{escape(name)}</li>' for number, name in enumerate(chart.series)
    )
    return (
        f"<figure><figcaption>{escape(chart.title)} <small>{escape(chart.unit)}</small></figcaption>"
        f'{svg(chart)}<ul class="legend">{legend}</ul></figure>'
    )


def _table(table: Table) -> str:
    def cell(tag: str, number: int, text: str) -> str:
        kinds = [*(["left"] if number in table.left else []), *([text] if text in _STATUS else [])]
        return f'<{tag} class="{" ".join(kinds)}">{escape(text)}</{tag}>'

    head = "".join(cell("th", number, text) for number, text in enumerate(table.head))
    rows = "".join(
        f"<tr>{''.join(cell('td', number, text) for number, text in enumerate(row))}</tr>" for row in table.rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
