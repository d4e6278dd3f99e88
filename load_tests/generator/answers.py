"""What an answer to a bid means to the one who sent it: accepted, refused, unknown or failed. Pure.

The distinction that matters is between *refused* or *failed* (the bid is certainly not in the auction) and
*unknown* (it may be): a timed-out bid must not be counted as either before ``bids/by-key`` was asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

import msgspec


class Fate(StrEnum):
    """What is known of a bid. ``FAILED`` says that it was surely not placed, ``UNKNOWN`` that nobody can tell
    yet.
    """

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class BidAnswer:
    """One answer, read. Amounts are minor units; None where the answer did not carry the field.

    ``leading`` says whether the bidder led after the decision, be the bid accepted or refused.
    ``reason`` is the stable code of a refusal or an error (``TOO_LOW``, ``OVERLOADED``), or a short text such
    as ``HTTP 502`` where there is none. ``complaint`` is set where the answer breaks the contract of the API.
    """

    fate: Fate
    reason: str = ""
    seq: int | None = None
    current_bid: int | None = None
    min_next_bid: int | None = None
    leading: bool = False
    complaint: str | None = None


class _Body(msgspec.Struct):
    success: bool | None = None
    code: str | None = None
    error: str | None = None
    seq: int | None = None
    current_bid: Decimal | None = None
    min_next_bid: Decimal | None = None
    is_highest: bool = False
    you_lead: bool = False


class _ItemBody(msgspec.Struct):
    id: str
    current_bid: Decimal
    min_next_bid: Decimal
    highest_bidder_id: str | None
    bid_count: int
    seq: int
    epoch: int


@dataclass(frozen=True, slots=True)
class ItemView:
    """An item as ``GET /api/v1/items/{id}`` showed it; amounts are minor units."""

    item_id: str
    current_bid: int
    min_next_bid: int
    highest_bidder_id: str | None
    bid_count: int
    seq: int
    epoch: int


_body_decoder = msgspec.json.Decoder(_Body)
_item_decoder = msgspec.json.Decoder(_ItemBody)

# A 503 with a code promises that nothing was changed, except this one: the bid may have been accepted.
_AMBIGUOUS_CODE = "OUTCOME_UNKNOWN"
_NO_SUCH_KEY = "KEY_NOT_FOUND"


def minor_units(amount: Decimal, exponent: int) -> int:
    """An exact decimal amount as minor units: ``Decimal("12.5"), 2`` gives ``1250``.

    Raises:
        ValueError: the amount has more decimals than ``exponent``, or is no finite number.
    """
    if not amount.is_finite():
        raise ValueError(f"{amount} is not a finite amount")
    scaled = amount.scaleb(exponent)
    minor = int(scaled)
    if minor != scaled:
        raise ValueError(f"{amount} has more than {exponent} decimals")
    return minor


def read_bid_answer(status: int, body: bytes | None, exponent: int = 2) -> BidAnswer:
    """Read the answer to ``POST /api/v1/items/{id}/bid``.

    Args:
        status: the HTTP status; 0 where no answer arrived (time-out, connection cut).
        body: the body, None or empty where there is none.
        exponent: decimals of the item's currency, 0 to 3.
    """
    if status == 0:
        return BidAnswer(Fate.UNKNOWN, "NO_ANSWER")
    try:
        parsed = _body_decoder.decode(body or b"")
        current_bid = None if parsed.current_bid is None else minor_units(parsed.current_bid, exponent)
        min_next_bid = None if parsed.min_next_bid is None else minor_units(parsed.min_next_bid, exponent)
    except (msgspec.DecodeError, ValueError) as error:
        # The body with the verdict cannot be read, so the bid may have been accepted.
        fate = Fate.UNKNOWN if status in (200, 201) or status >= 500 else Fate.FAILED
        return BidAnswer(fate, f"HTTP {status}", complaint=f"HTTP {status} with an unreadable body: {error}")
    if status == 201 and parsed.success and parsed.seq is not None and current_bid is not None:
        return BidAnswer(Fate.ACCEPTED, "", parsed.seq, current_bid, min_next_bid, parsed.is_highest)
    if status == 200 and parsed.success is False:
        reason = parsed.code or "NO_CODE"
        return BidAnswer(Fate.REFUSED, reason, None, current_bid, min_next_bid, parsed.you_lead)
    if status in (200, 201):
        complaint = f"HTTP {status} is neither an acceptance (201, success, seq, current_bid) nor a refusal"
        return BidAnswer(Fate.UNKNOWN, f"HTTP {status}", complaint=complaint)
    return _read_error(status, parsed)


def _read_error(status: int, parsed: _Body) -> BidAnswer:
    """409: another attempt of the same bid is in flight. 5xx: certain only as 503 with a code."""
    code = parsed.code or ""
    certain_503 = status == 503 and code not in ("", _AMBIGUOUS_CODE)
    ambiguous = status == 409 or (status >= 500 and not certain_503)
    return BidAnswer(
        Fate.UNKNOWN if ambiguous else Fate.FAILED,
        code or f"HTTP {status}",
        complaint=f"HTTP {status} {code or parsed.error or 'without a code'}",
    )


def read_item(body: bytes, exponent: int = 2) -> ItemView:
    """Read an item.

    Raises:
        ValueError: the body is not an item as the API documents it.
    """
    try:
        item = _item_decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ValueError(f"not an item: {error}") from error
    return ItemView(
        item.id,
        minor_units(item.current_bid, exponent),
        minor_units(item.min_next_bid, exponent),
        item.highest_bidder_id,
        item.bid_count,
        item.seq,
        item.epoch,
    )


def read_stored_verdict(status: int, body: bytes | None, exponent: int = 2) -> BidAnswer | None:
    """Read the answer to ``GET /api/v1/bids/by-key/{key}?item_id=``.

    Returns:
        The verdict as the bidder would have received it; None where no bid was decided under this key;
        ``UNKNOWN`` where the platform could not say.
    """
    try:
        stored = _body_decoder.decode(body or b"")
    except msgspec.DecodeError as error:
        return BidAnswer(Fate.UNKNOWN, f"HTTP {status}", complaint=f"HTTP {status}, unreadable: {error}")
    if status == 404 and stored.code == _NO_SUCH_KEY:
        return None
    # The look-up is answered with 200 whatever the verdict was.
    answer = read_bid_answer(201 if status == 200 and stored.success else status, body, exponent)
    if answer.fate is Fate.FAILED:
        return replace(answer, fate=Fate.UNKNOWN)
    return answer
