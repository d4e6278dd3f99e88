"""The same report as Markdown; charts are in their tables."""

from __future__ import annotations

import re
from collections.abc import Iterator

from load_tests.experiments.compare.document import Document, Table


def markdown(document: Document) -> str:
    """The whole text."""
    return "\n".join(_lines(document)).rstrip() + "\n"


def _lines(document: Document) -> Iterator[str]:
    yield f"# {document.title}"
    yield ""
    yield from (f"- {_plain(sentence)}" for sentence in document.summary)
    for section in document.sections:
        yield ""
        yield f"## {section.title}"
        if section.findings:
            yield ""
            yield from (f"- {_plain(sentence)}" for sentence in section.findings)
        for table in section.tables:
            yield ""
            yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(map(_plain, table.head))} |"
    yield f"|{'|'.join('---' if number in table.left else '---:' for number in range(len(table.head)))}|"
    for row in table.rows:
        yield f"| {' | '.join(map(_plain, row))} |"


def _plain(text: str) -> str:
    """The text, escaped: text of a file must not end a cell, or become a tag, a link or an image."""
    return re.sub(r"([\\|*`\[\]])", r"\\\1", " ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")
