"""What CloudWatch was told during a load run, beside what the run itself counted. Not part of the proof.

CloudWatch adds up whole minutes, so bids of the minute in which the run began count too; and a service reports only now
and then, so the run waits for a while, until CloudWatch has as much as the run itself saw.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from infrastructure.local.terminal import lines_of, table
from shared.aws.clients import AwsError, open_cloudwatch
from shared.aws.cloudwatch import Question, read_back

DECIDED: Final = Question("api_gateway", "BidsDecided", "Sum")
ARCHIVED: Final = Question("archival_worker", "BidsArchived", "Sum")

QUESTIONS: Final = {
    DECIDED: "bids decided",
    ARCHIVED: "bids archived",
    Question("archival_worker", "ConsumerLag", "Maximum"): "messages behind at most",
    Question("api_gateway", "OutboxLongest", "Maximum"): "entries in the longest outbox at most",
    Question("broadcast_service", "Connections", "Maximum"): "viewers at most, on one broadcaster",
}

_LOOK_EVERY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What CloudWatch has. ``problem`` says why some of it, or all, is missing."""

    namespace: str
    values: Mapping[Question, float | None]
    problem: str = ""

    def know(self, seen: Mapping[Question, float]) -> bool:
        """Whether they have at least as much as was seen."""
        return all((self.values.get(question) or 0.0) >= value for question, value in seen.items())


async def ask(
    namespace: str,
    start: datetime,
    seen: Mapping[Question, float],
    *,
    wait_s: float,
    opened: Callable[[], Any] = open_cloudwatch,
) -> Figures:
    """The figures from ``start`` on, as soon as they have as much as was ``seen``, at the latest after ``wait_s``
    seconds.

    Never raises: the bids are what counts, and they are proved without CloudWatch.
    """
    clock = asyncio.get_running_loop().time
    deadline_s = clock() + wait_s
    values: Mapping[Question, float | None] = {}
    try:
        client = await asyncio.to_thread(opened)
        while True:
            values = await asyncio.to_thread(read_back, client, namespace, list(QUESTIONS), start, datetime.now(UTC))
            figures = Figures(namespace, values)
            if figures.know(seen):
                return figures
            if clock() >= deadline_s:
                break
            await asyncio.sleep(_LOOK_EVERY_S)
    except AwsError as error:
        return Figures(namespace, values, str(error))
    expected = ", ".join(f"{question.metric} {value:,.0f}" for question, value in seen.items())
    return Figures(namespace, values, f"after {wait_s:.0f} s it knew of less than was seen here: {expected}")


def lines(figures: Figures | None) -> Iterable[str]:
    """The lines for the terminal; none where nobody asked."""
    if figures is None:
        return
    yield ""
    yield f"CloudWatch, {figures.namespace}, whole minutes"
    rows = []
    for question, text in QUESTIONS.items():
        value = figures.values.get(question)
        shown = "not reported" if value is None else f"{value:,.0f}"
        rows.append((question.service, question.metric, shown, text))
    yield from lines_of(table(rows, right=(2,), indent=2))
    if figures.problem:
        yield f"  incomplete: {figures.problem}"


def plain(figures: Figures | None) -> dict[str, Any] | None:
    """The figures as plain data, for the report as JSON."""
    if figures is None:
        return None
    values = {f"{question.service}/{question.metric}": value for question, value in figures.values.items()}
    return {"namespace": figures.namespace, "values": values, "problem": figures.problem or None}
