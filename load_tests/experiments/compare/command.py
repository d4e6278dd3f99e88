"""The command: files in, a page and a Markdown text out."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from infrastructure.local.commands.helping import examples
from load_tests.experiments.common.results import ResultError, read_result
from load_tests.experiments.compare.build import build, named
from load_tests.experiments.compare.markdown import markdown
from load_tests.experiments.compare.page import html

_EXIT_NO_REPORT = 2


@click.command(epilog=examples("bidding experiment compare ladder.json twin.json --out report.html"))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    help="File for the page; the Markdown text gets the same name with .md.",
)
def compare(files: tuple[Path, ...], out: Path) -> None:
    """A report from the results FILES: tables, charts, and what the reference reports' claims are worth here."""
    try:
        paths = list(dict.fromkeys(files))
        _require_others(paths, out)
        document = build(named(paths, [read_result(path) for path in paths]))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(html(document))
        out.with_suffix(".md").write_text(markdown(document))
    except ResultError as error:
        click.echo(f"No report: {error}", err=True)
        sys.exit(_EXIT_NO_REPORT)
    except OSError as error:
        click.echo(f"The report cannot be written: {error}", err=True)
        sys.exit(_EXIT_NO_REPORT)
    for sentence in document.summary:
        click.echo(f"  {sentence}")
    click.echo(f"Report: {out}, {out.with_suffix('.md')}")


def _require_others(files: list[Path], out: Path) -> None:
    """Raises ResultError where the report would take the place of a result, or the text that of the page."""
    text = out.with_suffix(".md")
    if text == out:
        raise ResultError(f"--out is the page, such as {out.with_suffix('.html')}; the Markdown goes beside it")
    taken = {path.resolve() for path in files} & {out.resolve(), text.resolve()}
    if taken:
        raise ResultError(f"--out {out} would overwrite the result {taken.pop()}")
