"""Bodies of requests, and of the answers that are encoded from a struct. One definition serves the service and OpenAPI.

Amounts in requests stay the raw text of the JSON number (see :mod:`shared.domain.money`). Answers that are put together
otherwise are in :mod:`api_gateway.contract.documented`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from api_gateway.images.addresses import PER_ITEM_MAX, URL_CHARACTERS_MAX
from shared import names
from shared.domain.errors import AmountInvalid, InvalidInput
from shared.domain.money import MINOR_MAX, parse_amount

# The largest amount of a currency without decimals; each decimal makes it ten times smaller.
_number: Final = {"type": "number", "maximum": MINOR_MAX, "examples": [12.5]}
Amount = Annotated[Raw, Meta(extra_json_schema={**_number, "exclusiveMinimum": 0})]
Price = Annotated[Raw, Meta(extra_json_schema={**_number, "minimum": 0})]
# Null means the same as absence. It is part of the text that Raw holds, so the types cannot say it.
_nullable: Final = {**_number, "type": ["number", "null"]}
OptionalAmount = Annotated[Raw, Meta(extra_json_schema={**_nullable, "exclusiveMinimum": 0})] | UnsetType
OptionalPrice = Annotated[Raw, Meta(extra_json_schema={**_nullable, "minimum": 0})] | UnsetType
Count = Annotated[int, Meta(ge=0, extra_json_schema={"format": "int64"})]
Instant = Annotated[str, Meta(extra_json_schema={"format": "date-time", "examples": ["2030-01-31T18:00:00Z"]})]
TokenId = Annotated[str, Meta(extra_json_schema={"pattern": names.TOKEN_ID_PATTERN})]
UserId = Annotated[str, Meta(extra_json_schema={"pattern": names.USER_ID_PATTERN, "examples": ["ann"]})]
ItemId = Annotated[str, Meta(extra_json_schema={"pattern": names.ITEM_ID_PATTERN, "examples": ["demo-1"]})]
NewBidId = Annotated[str, Meta(extra_json_schema={"pattern": names.BID_ID_PATTERN, "examples": ["ann-1"]})]
BidId = Annotated[str, Meta(extra_json_schema={"pattern": names.SHOWN_BID_ID_PATTERN, "examples": ["ann-1"]})]
Currency = Annotated[str, Meta(extra_json_schema={"pattern": "^[A-Z]{3}$", "examples": ["USD"]})]
# No address is longer, not even of an image that is kept here. The routes check everything else.
ImageUrl = Annotated[
    str,
    Meta(max_length=URL_CHARACTERS_MAX, extra_json_schema={"format": "uri-reference"}),
]
# The routes check these themselves, and say more than that a pattern does not match.
NO_NUL: Final = Meta(extra_json_schema={"pattern": r"^[^\u0000]*$"})
_CONTROL: Final = r"\u0000-\u001f\u007f-\u009f"
_CONTROL_BUT_LINES: Final = r"\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f"
_LINES: Final = Meta(extra_json_schema={"pattern": f"^[^{_CONTROL_BUT_LINES}]*$"})


def _not_blank(denied: str) -> Meta:
    return Meta(extra_json_schema={"pattern": rf"^[^{denied}]*[^\s{denied}][^{denied}]*$"})


HAS_CONTROL: Final = re.compile(f"[{_CONTROL}]")
"""Finds what no text of one line may have: PostgreSQL cannot store NUL, and terminals would obey the others."""
HAS_CONTROL_BUT_LINES: Final = re.compile(f"[{_CONTROL_BUT_LINES}]")
"""The same for a text that may have tabs and line breaks."""

NULL: Final = Raw(b"null")
"""What an optional amount holds where the client sent null; UNSET where it sent nothing."""

USER_ID_RULE: Final = "user_id: 1 to 64 characters of A-Z a-z 0-9 _ . @ -, not all of them dots"


class BidRequest(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A bid: an amount, a hidden maximum up to which the platform bids for you, or both.

    A client-made `bid_id`, or the header Idempotency-Key, makes the request safe to repeat.
    """

    user_id: Annotated[
        UserId | UnsetType,
        Meta(description="Who bids. Required, unless a token says who calls: then it is you, and may be left out."),
    ] = UNSET
    amount: Annotated[Amount | UnsetType, Meta(description="What you bid; optional beside `max_amount`.")] = UNSET
    max_amount: Annotated[
        OptionalAmount, Meta(description="Up to where the platform bids for you, at least `amount`. Nobody is told.")
    ] = UNSET
    bid_id: Annotated[NewBidId | None, Meta(description="Your own id of this bid, new for each new bid.")] = None


BATCH_MAX: Final = 500
"""Bids, or new items, in one request."""


class BatchedBid(BidRequest, gc=False, forbid_unknown_fields=True, kw_only=True):
    """A bid among others. Its key is its `bid_id`."""

    item_id: Annotated[ItemId, Meta(description="The item.")]


class BidBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Bids that are decided each for itself. Those on one item are decided in their order."""

    bids: Annotated[list[BatchedBid], Meta(min_length=1, max_length=BATCH_MAX)]


Body = TypeVar("Body", bound=msgspec.Struct)

_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(.*)`(?: - at `\$\.?([^`]*)`)?\Z", re.DOTALL)


_LETTERS_APART_MAX: Final = 3


def decode_body(decoder: msgspec.json.Decoder[Body], body: bytes | str, example: str = "") -> Body:
    """The body of a request, or a message; ``example`` is shown where the body is refused.

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
        meant = _meant(name, known)
        hint = f'did you mean "{meant}"?' if meant else f"known are {', '.join(known)}"
        detail = f'the body has an unknown member "{name}"; {hint}'
    error = InvalidInput(detail)
    error.field = f"{inside}.{name}" if inside else name
    return error


def _meant(name: str, known: Sequence[str]) -> str | None:
    """The name that has the same letters but for a few, whatever their order. difflib guesses better, and takes
    milliseconds: many of these may be in one request."""
    most = min(_LETTERS_APART_MAX, len(name))

    def letters_apart(other: str) -> int:
        ours, theirs = Counter(name), Counter(other)
        return (ours - theirs).total() + (theirs - ours).total()

    near = [other for other in known if abs(len(other) - len(name)) <= most]
    best = min(near, key=letters_apart, default=None)
    return best if best is not None and letters_apart(best) <= most else None


def optional_amount(literal: Raw | UnsetType, exponent: int, field: str, *, minimum_minor: int = 1) -> int | None:
    """The minor units of the amount in member ``field`` of a request, None where it is absent or null.

    Raises:
        AmountInvalid: it is present, but no amount of a currency with ``exponent`` decimals.
    """
    if literal is UNSET or literal == NULL:
        return None
    try:
        return parse_amount(str(literal, "latin-1"), exponent, minimum_minor=minimum_minor)
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

    name: Annotated[str, _not_blank(_CONTROL), Meta(min_length=1, max_length=200, description="Its title; not blank.")]
    id: Annotated[ItemId | None, Meta(description="By default one is made.")] = None
    description: Annotated[str, _LINES, Meta(max_length=5_000, description="Plain text; by default none.")] = ""
    image_urls: Annotated[
        list[ImageUrl],
        Meta(
            max_length=PER_ITEM_MAX,
            description="Its images, the most telling one first: the `url` of each upload, or https addresses on a "
            "host that `IMAGE_HOSTS` names.",
        ),
    ] = []
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
    approval_required: Annotated[
        bool, Meta(description="Take bids of bidders alone who were approved, on this item or for all.")
    ] = False


class ItemBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Items that are created each for itself. With `dry_run` they are only checked."""

    items: Annotated[list[NewItemBody], Meta(min_length=1, max_length=BATCH_MAX)]
    dry_run: bool = False


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


class NamedBid(HistoryBid):
    """An accepted bid, and who is behind the alias."""

    user_id: UserId


class NamedBidsPage(msgspec.Struct):
    """As HistoryPage, with the names of the bidders."""

    bids: list[NamedBid]
    next_cursor: str | None
    partial: bool


class OperationBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why, and who says so; both are kept in the audit."""

    reason: Annotated[str, _not_blank(_CONTROL_BUT_LINES), Meta(min_length=1, max_length=500, description="Not blank.")]
    by: Annotated[
        UserId | UnsetType, Meta(description="By default `operator`; where a token says who calls, that is you.")
    ] = UNSET


class ExtendBody(OperationBody):
    """The new end, or by how much the end becomes later: one of the two. Why, and who says so."""

    end_time: Annotated[Instant | None, Meta(description="The new end; not of a paused item.")] = None
    by_s: Annotated[
        Annotated[int, Meta(ge=1, le=30 * 86_400)] | None,
        Meta(
            description="By how many seconds it becomes later; of a paused item what is added to the time that is left."
        ),
    ] = None


class FeedTokenBody(msgspec.Struct, forbid_unknown_fields=True):
    """Whose token it is to be."""

    user_id: Annotated[
        UserId | UnsetType, Meta(description="Who; where a token says who calls, that is you, and may be left out.")
    ] = UNSET


class TokenAnswer(msgspec.Struct):
    """A token for an API key."""

    access_token: Annotated[str, Meta(description="What to send as `Authorization: Bearer`.")]
    token_type: Literal["Bearer"]
    expires_in: Annotated[Count, Meta(description="Seconds.")]


class RevocationBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is revoked: one of both."""

    user_id: Annotated[UserId | UnsetType, Meta(description="All tokens of this user that were issued until now.")] = (
        UNSET
    )
    token_id: Annotated[TokenId | UnsetType, Meta(description="The token of this `jti`.")] = UNSET
    reason: Annotated[str, NO_NUL, Meta(max_length=500, description="Why. Only the record of acts has it.")] = ""


class RevocationAnswer(msgspec.Struct, omit_defaults=True):
    """What is revoked, and for how long that is remembered: a token must not live longer."""

    revoked_at: Instant
    kept_until: Instant
    recorded: Annotated[
        bool,
        Meta(description="Whether `GET /ops/acts` will tell who did it. Not while too much waits to be archived."),
    ]
    user_id: UserId | UnsetType = UNSET
    token_id: TokenId | UnsetType = UNSET


class FeedTokenAnswer(msgspec.Struct):
    """A token for the live feed: `{"op":"authenticate","token":…}`."""

    token: str
    expires: Instant
    expires_in: Annotated[Count, Meta(description="Seconds.")]


class FeedTicketAnswer(msgspec.Struct):
    """A ticket for one connection of the live feed: `{"op":"authenticate","ticket":…}`. It is good once."""

    ticket: str
    expires_in: Annotated[Count, Meta(description="Seconds within which it must be used.")]


class SignInBody(msgspec.Struct, forbid_unknown_fields=True):
    """The code of a link."""

    code: Annotated[str, Meta(max_length=64)]


class SignInAnswer(msgspec.Struct):
    """A token of the API, as `Authorization: Bearer <token>`."""

    token: str


class SignInCodeAnswer(msgspec.Struct):
    """A code that is exchanged once for the token with which it was asked for."""

    code: str
    expires_in: Annotated[Count, Meta(description="Seconds within which it must be used.")]


class MeAnswer(msgspec.Struct):
    """Who calls. Without tokens nobody is known, and everybody has all roles."""

    user_id: Annotated[UserId | None, Meta(description="Null where nobody is asked who they are.")]
    roles: list[str]
    expires: Annotated[Instant | None, Meta(description="Until when the token is good.")]
