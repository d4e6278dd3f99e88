"""Every worked example of ``docs/rules.md`` through the script inside Redis."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.domain.auction import State
from shared.redis_layout.verdicts import AcceptedBid, RefusedBid, VerdictLine
from tests.documents.worked_examples import START_US, Example, check, examples
from tests.histories import KeyedBid
from tests.integration.gateway.rules.rule_engine import ITEM, Engine


def _answer(verdict: VerdictLine, state: State) -> str:
    if isinstance(verdict, RefusedBid):
        return f"refused: {verdict.code}"
    assert isinstance(verdict, AcceptedBid)
    if verdict.raised:
        return "maximum raised"
    if verdict.kind == "buy_now":
        return "bought"
    if not verdict.leads:
        return "accepted, outbid at once"
    return "accepted" if state.reserve_met else "accepted, reserve not met"


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_example(engine: Engine, example: Example) -> None:
    terms = replace(example.terms, item_id=ITEM)
    engine.reset(terms, START_US)
    for row in example.rows:
        engine.set_clock(row.now_us)
        if row.bid is None:
            assert row.strikes is not None
            assert engine.void(row.strikes)
            check(row, terms, engine.item().state, "struck")
            continue
        (verdict,) = engine.place((KeyedBid(row.bid, None, False),))
        state = engine.item().state
        check(row, terms, state, _answer(verdict, state))
