"""Bodies of requests, and of the answers that are encoded from a struct. One definition serves the service and OpenAPI.

Amounts in requests stay the raw text of the JSON number (see :mod:`shared.domain.money`). Answers that are put together
otherwise are in :mod:`api_gateway.documented`.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from shared import names
from shared.domain.errors import AmountInvalid, InvalidInput
from shared.domain.money import MINOR_MAX, parse_amount

# The largest amount of a currency without decimals; with decimals it is that much smaller.
_number: Final = {"type": "number", "maximum": MINOR_MAX, "examples": [12.5]}
Amount = Annotated[Raw, Meta(extra_json_schema={**_number, "exclusiveMinimum": 0})]
Price = Annotated[Raw, Meta(extra_json_schema={**_number, "minimum": 0})]
# Null means the same as absence. It is part of the text that Raw holds, so the types cannot say it.
_nullable: Final = {**_number, "type": ["number", "null"]}
OptionalAmount = Annotated[Raw, Meta(extra_json_schema={**_nullable, "exclusiveMinimum": 0})] | UnsetType
OptionalPrice = Annotated[Raw, Meta(extra_json_schema={**_nullable, "minimum": 0})] | UnsetType
Count = Annotated[int, Meta(ge=0, extra_json_schema={"format": "int64"})]
Instant = Annotated[str, Meta(extra_json_schema={"format": "date-time", "examples": ["2030-01-31T18:00:00Z"]})]
UserId = Annotated[str, Meta(extra_json_schema={"pattern": names.USER_ID_PATTERN, "examples": ["ann"]})]
ItemId = Annotated[str, Meta(extra_json_schema={"pattern": names.ITEM_ID_PATTERN, "examples": ["demo-1"]})]
NewBidId = Annotated[str, Meta(extra_json_schema={"pattern": names.BID_ID_PATTERN, "examples": ["ann-1"]})]
BidId = Annotated[str, Meta(extra_json_schema={"pattern": names.SHOWN_BID_ID_PATTERN, "examples": ["ann-1"]})]
Currency = Annotated[str, Meta(extra_json_schema={"pattern": "^[A-Z]{3}$", "examples": ["USD"]})]
# The routes check these themselves, and say more than that a pattern does not match.
_NO_NUL: Final = Meta(extra_json_schema={"pattern": r"^[^\u0000]*$"})
_NOT_BLANK: Final = Meta(extra_json_schema={"pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$"})

NULL: Final = Raw(b"null")
"""What an optional amount holds where the client sent null; UNSET where it sent nothing."""

USER_ID_RULE: Final = "user_id: 1 to 64 characters of A-Z a-z 0-9 _ . @ -, not all of them dots"


class BidRequest(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A bid: an amount, a hidden maximum up to which the platform bids for you, or both.

    A client-made `bid_id`, or the header Idempotency-Key, makes the request safe to repeat.
    """

    user_id: Annotated[UserId, Meta(description="Who bids.")]
    amount: Annotated[Amount | UnsetType, Meta(description="What you bid; optional beside `max_amount`.")] = UNSET
    max_amount: Annotated[
        OptionalAmount, Meta(description="Up to where the platform bids for you, at least `amount`. Nobody is told.")
    ] = UNSET
    bid_id: Annotated[NewBidId | None, Meta(description="Your own id of this bid, new for each new bid.")] = None


Body = TypeVar("Body", bound=msgspec.Struct)

_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(.*)`(?: - at `\$\.?([^`]*)`)?\Z", re.DOTALL)


def decode_body(decoder: msgspec.json.Decoder[Body], body: bytes, example: str = "") -> Body:
    """The body of a request; ``example`` is shown where the body is refused.

    Raises:
        InvalidInput: it is no JSON, not of this form, or has a member that is unknown here. A misspelt member must not
            be ignored: without its `max_amount` a bid would be another one, for all to see.
    """
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = str(error) or "the body nests too deeply"
        unknown = _UNKNOWN_FIELD.match(detail) if isinstance(error, msgspec.ValidationError) else None
    if unknown is not None:
        raise _unknown_field(decoder.type, unknown[1][:64], inside=unknown[2])
    raise InvalidInput(f"{detail}; send for example {example}" if example else detail)


def _unknown_field(body: type[msgspec.Struct], name: str, *, inside: str | None) -> InvalidInput:
    if inside:
        detail = f'"{inside}" has an unknown member "{name}"'
    else:
        known = [field.encode_name for field in msgspec.structs.fields(body)]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"known are {', '.join(known)}"
        detail = f'the body has an unknown member "{name}"; {hint}'
    error = InvalidInput(detail)
    error.field = f"{inside}.{name}" if inside else name
    return error


def optional_amount(literal: Raw | UnsetType, exponent: int, field: str, *, minimum_minor: int = 1) -> int | None:
    """The minor units of the amount in member ``field`` of a request, None where it is absent or null.

    Raises:
        AmountInvalid: it is present, but no amount of a currency with ``exponent`` decimals.
    """
    if literal is UNSET or literal == NULL:
        return None
    try:
        return parse_amount(bytes(literal).decode("latin-1"), exponent, minimum_minor=minimum_minor)
    except AmountInvalid as error:
        raise AmountInvalid(error.literal, error.reason, field) from None


class StepBody(msgspec.Struct, forbid_unknown_fields=True):
    """One step of a ladder: below this price, this increment; the last step has no `below`."""

    increment: Amount
    below: OptionalAmount = UNSET


class IncrementBody(msgspec.Struct, forbid_unknown_fields=True):
    """`flat`: `value` is an amount. `percent`: `value` is a percentage with at most two decimals, up to 100. `ladder`:
    `steps`; without them those of eBay."""

    kind: Literal["flat", "percent", "ladder"]
    value: OptionalAmount = UNSET
    steps: list[StepBody] | None = None


class SoftCloseBody(msgspec.Struct, forbid_unknown_fields=True):
    """A bid in the last `trigger_s` seconds moves the end by `extend_s`, counted from the bid (`from_bid`, the default)
    or from the end as it was; at most `max_count` times (null or 0: any number), never past `hard_end`."""

    trigger_s: Annotated[int, Meta(ge=1, le=86_400)]
    extend_s: Annotated[int, Meta(ge=1, le=86_400)]
    mode: Literal["from_bid", "from_end"] = "from_bid"
    max_count: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    hard_end: Instant | None = None


class NewItemBody(msgspec.Struct, forbid_unknown_fields=True):
    """An item and its terms; only `name` is required."""

    name: Annotated[str, _NOT_BLANK, Meta(min_length=1, max_length=200, description="Its title; not blank.")]
    id: Annotated[ItemId | None, Meta(description="By default one is made.")] = None
    description: Annotated[str, _NO_NUL, Meta(max_length=5_000, description="Plain text; by default none.")] = ""
    currency: Annotated[
        Currency, Meta(description="ISO 4217, by default USD; its decimals are those of every amount.")
    ] = "USD"
    seller_id: Annotated[UserId | None, Meta(description="Who sells, and so may not bid.")] = None
    start_price: Annotated[OptionalPrice, Meta(description="What the first bid must reach; by default 0.")] = UNSET
    reserve_price: Annotated[
        OptionalAmount, Meta(description="Hidden. Below it the item is not sold; at least `start_price`.")
    ] = UNSET
    buy_now_price: Annotated[
        OptionalAmount, Meta(description="An `amount` that reaches it ends the auction, at this price.")
    ] = UNSET
    increment: Annotated[
        IncrementBody | None, Meta(description="What a bid must add; by default the currency's smallest unit.")
    ] = None
    start_time: Annotated[Instant | None, Meta(description="By default now.")] = None
    end_time: Annotated[Instant | None, Meta(description="By default it never ends.")] = None
    duration_s: Annotated[
        Annotated[int, Meta(ge=1, le=366 * 86_400)] | None,
        Meta(description="Instead of `end_time`: seconds from the start, by the server's clock."),
    ] = None
    soft_close: Annotated[SoftCloseBody | None, Meta(description="Needs an end.")] = None


class HistoryBid(msgspec.Struct):
    """An accepted bid in the public history; `bidder` is an alias that is stable within the item."""

    seq: Annotated[Count, Meta(description="The number of the bid's event within the item: 1, 2, 3 … without a gap.")]
    bid_id: BidId
    bidder: str
    amount: Price
    kind: Annotated[Literal["bid", "proxy", "buy_now"], Meta(description="`proxy`: the platform bid for a maximum.")]
    status: Annotated[
        Literal["valid", "voided", "repriced"],
        Meta(
            description="`voided`: it was struck, or it was an automatic bid and went with one that was struck. "
            "`repriced`: the bid stands; the price that it set does not, since another bid was struck."
        ),
    ]
    timestamp: Instant


class HistoryPage(msgspec.Struct):
    """Bids, newest first. `partial` is true while the archive is away and only the latest bids can be shown."""

    bids: list[HistoryBid]
    next_cursor: str | None
    partial: bool


class OperationBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why, and who says so; both are kept in the audit."""

    reason: Annotated[str, _NOT_BLANK, Meta(min_length=1, max_length=500, description="Not blank.")]
    by: Annotated[UserId, Meta(description="By default `operator`.")] = "operator"


class FeedTokenBody(msgspec.Struct, forbid_unknown_fields=True):
    """Whose token it is to be."""

    user_id: UserId


class FeedTokenAnswer(msgspec.Struct):
    """A token for the live feed: `?token=` of its address, or `{"op":"authenticate","token":…}`."""

    token: str
    expires: Instant
    expires_in: Annotated[Count, Meta(description="Seconds.")]
