"""What the report says of CloudWatch, and that a CloudWatch that is away spoils no run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from load_tests.run.cloudwatch import DECIDED, ask, lines, plain

START = datetime(2030, 1, 1, 12, 0, 30, tzinfo=UTC)


class CloudWatch:
    """Knows of more decisions at every look."""

    def __init__(self, *looks: float) -> None:
        self._looks = list(looks)
        self.asked: list[dict[str, Any]] = []

    def get_metric_data(self, **question: Any) -> dict[str, Any]:
        self.asked.append(question)
        value = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        return {"MetricDataResults": [{"Id": "q0", "Values": [value / 2, value / 2]}]}


async def test_the_figures_are_there_as_soon_as_cloudwatch_knows_as_many_decisions() -> None:
    cloudwatch = CloudWatch(100)
    figures = await ask("Bidding/test", START, {DECIDED: 90}, wait_s=60, opened=lambda: cloudwatch)
    assert (figures.values[DECIDED], figures.problem, len(cloudwatch.asked)) == (100, "", 1)
    assert cloudwatch.asked[0]["StartTime"] == START.replace(second=0)
    text = "\n".join(lines(figures))
    assert "BidsDecided             100  bids decided" in text
    assert "not reported" in text
    told = plain(figures)
    assert told is not None
    assert told["values"]["api_gateway/BidsDecided"] == 100


async def test_fewer_than_the_run_saw_is_said() -> None:
    figures = await ask("Bidding/test", START, {DECIDED: 90}, wait_s=0, opened=lambda: CloudWatch(10))
    assert figures.values[DECIDED] == 10
    assert "knew of less than was seen here: BidsDecided 90" in "\n".join(lines(figures))


async def test_a_cloudwatch_that_is_away_is_a_line_and_no_failure() -> None:
    class Broken:
        def get_metric_data(self, **_: Any) -> Any:
            raise ConnectionError("refused")

    figures = await ask("Bidding/test", START, {DECIDED: 1}, wait_s=60, opened=Broken)
    assert "ConnectionError: refused" in figures.problem
    assert list(lines(None)) == []
    assert plain(None) is None
