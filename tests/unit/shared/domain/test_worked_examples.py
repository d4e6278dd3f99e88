"""Every worked example of ``docs/rules.md`` through the reference rules."""

from __future__ import annotations

import pytest

from shared.domain.auction import opening_state
from shared.domain.bidding import Accepted, place_bid
from shared.domain.voiding import LogEntry, logged, void
from tests.documents.worked_examples import START_US, Example, answer_of, check, examples

EXAMPLES = list(examples())


def test_the_page_has_its_examples() -> None:
    assert len(EXAMPLES) >= 25


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example(example: Example) -> None:
    state, log = opening_state(example.terms, START_US), tuple[LogEntry, ...]()
    for row in example.rows:
        if row.bid is None:
            assert row.strikes is not None
            after = void(example.terms, state, log, row.strikes, row.now_us)
            state, log = after.state, after.log
            check(row, example.terms, state, "struck")
            continue
        outcome = place_bid(example.terms, state, row.bid, row.now_us)
        state = outcome.state
        if isinstance(outcome.verdict, Accepted):
            log += (logged(len(log) + 1, row.bid, outcome),)
        check(row, example.terms, state, answer_of(outcome.verdict, state))
