"""What clients make of the JSON that they are sent. Amounts in cents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import httpx2 as httpx

from shared.timefmt import from_datetime
from tests.faults.rig.history import Answer, Outcome, Public


def minor(amount: Decimal | int) -> int:
    """Cents of an amount in an answer or a frame."""
    cents = Decimal(amount) * 100
    assert cents == int(cents)
    return int(cents)


def public_of_json(state: Mapping[str, Any]) -> Public:
    """The public state in the JSON of an item or of a frame."""
    end = state["end_time"]
    return Public(
        minor(state["current_bid"]),
        state["highest_bidder_id"],
        state["bid_count"],
        minor(state["min_next_bid"]),
        state["status"],
        state["reserve_met"],
        None if end is None else from_datetime(datetime.fromisoformat(end)),
    )


def answer_of(body: Mapping[str, Any]) -> Answer:
    """What an accepted or a refused bid was told."""
    return Answer(
        minor(body["current_bid"]),
        minor(body["min_next_bid"]),
        body["is_highest"] if body["success"] else body["you_lead"],
        body["reserve_met"],
        body.get("bid_id"),
        None if body["your_bid"] is None else minor(body["your_bid"]),
    )


def outcome_of(
    answer: httpx.Response | None, body: Mapping[str, Any], *, is_lookup: bool
) -> tuple[Outcome, str | None]:
    """What the client knows now, and the code of a refusal or an error."""
    if answer is None:
        return "unknown", None
    code = body.get("code")
    if answer.status_code in (200, 201):
        return ("ok" if body["success"] else "refused"), code
    if answer.status_code == 404 and is_lookup and code == "KEY_NOT_FOUND":
        return "absent", code
    if answer.status_code == 422:
        return "rejected", code
    assert answer.status_code == 503, f"{answer.status_code}: {answer.text}"
    return ("unknown" if is_lookup or code == "OUTCOME_UNKNOWN" else "declined"), code
