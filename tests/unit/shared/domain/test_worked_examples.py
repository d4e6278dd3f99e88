"""Every worked example of ``docs/rules.md`` through the reference rules."""

from __future__ import annotations

import pytest

from shared.domain.auction import opening_state
from shared.domain.bidding import place_bid
from tests.worked_examples import START_US, Example, answer_of, check, examples

EXAMPLES = list(examples())


def test_the_page_has_its_examples() -> None:
    assert len(EXAMPLES) >= 18


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example(example: Example) -> None:
    state = opening_state(example.terms, START_US)
    for row in example.rows:
        outcome = place_bid(example.terms, state, row.bid, row.now_us)
        state = outcome.state
        check(row, example.terms, state, answer_of(outcome.verdict, state))
