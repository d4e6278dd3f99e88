"""What a person sees while an experiment runs: a bar per step, and a line that stays for each step that is done."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_REFRESH_S = 0.25


class StepBar:
    """The bar of a step under way; ``note`` is shown behind it."""

    def __init__(self) -> None:
        self.note = ""


@contextlib.asynccontextmanager
async def step_bar(label: str, seconds: float) -> AsyncIterator[StepBar]:
    """A bar that fills in so many seconds, on a terminal; elsewhere nothing is shown until the step is done."""
    bar = StepBar()
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task_id = progress.add_task(label, total=max(seconds, 0.1), note="")

        async def fill() -> None:
            began_s = time.monotonic()
            while True:
                await asyncio.sleep(_REFRESH_S)
                progress.update(task_id, completed=min(seconds, time.monotonic() - began_s), note=bar.note)

        task = asyncio.create_task(fill())
        try:
            yield bar
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def done(text: str) -> None:
    """The line of a step that is done."""
    click.echo(f"  {text}")
