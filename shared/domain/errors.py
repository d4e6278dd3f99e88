"""The errors of the platform. They carry data, build their own message, and know nothing of HTTP."""

from __future__ import annotations


class BiddingError(Exception):
    """Base of all errors of the platform.

    ``code`` is a stable, upper-case name that clients may compare; ``str(error)`` says what to do.
    """

    code = "BIDDING_ERROR"


class InvalidInput(BiddingError):
    """The request can never succeed as it is; nothing was changed. ``field``: the wrong member, if it is one."""

    code = "INVALID"
    field: str | None = None


class AmountInvalid(InvalidInput):
    """The amount is not a JSON number, has too many decimals or is out of range."""

    code = "AMOUNT_INVALID"

    def __init__(self, literal: str, reason: str, field: str | None = None) -> None:
        self.literal = literal[:64]
        self.reason = reason
        self.field = field
        super().__init__(f"amount {self.literal} {reason}")


class CurrencyUnknown(InvalidInput):
    """Not an ISO 4217 code of a currency in use."""

    code = "CURRENCY_UNKNOWN"
    field = "currency"

    def __init__(self, currency: str) -> None:
        self.currency = currency[:16]
        super().__init__(f"currency {self.currency!r} is not an ISO 4217 code, use for example USD, EUR or JPY")


class TermsInvalid(InvalidInput):
    """The terms of an item contradict each other or are out of range."""

    code = "TERMS_INVALID"

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}")


class KeyReused(InvalidInput):
    """An idempotency key or bid id was used before with other content."""

    code = "KEY_REUSED"

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"key {key!r} was used before with other content; use a new key for a new bid")


class ItemNotFound(BiddingError):
    code = "ITEM_NOT_FOUND"

    def __init__(self, item_id: str) -> None:
        self.item_id = item_id
        super().__init__(f"item {item_id!r} does not exist; check its id, or create it with POST /api/v1/items")


class BidNotFound(BiddingError):
    """No bid of this id was accepted on the item.

    ``cause``: for the id of an automatic bid, the bid that it came with, which can be struck.
    """

    code = "BID_NOT_FOUND"

    def __init__(self, item_id: str, bid_id: str, *, cause: str | None = None) -> None:
        self.item_id = item_id
        self.bid_id = bid_id
        text = f"item {item_id!r} has no accepted bid {bid_id!r}"
        if cause is not None:
            text += (
                "; an automatic bid cannot be struck by itself: strike the bid whose maximum made it, or the rival's "
                f"{cause!r} that it came with"
            )
        super().__init__(text)


class HistoryRetired(BiddingError):
    """The item is over, and its bids are not in the archive any more: an export has them.

    ``export``: its name; ``head``: the hash of the item's last event, in hex; ``retired_us``: since when.
    """

    code = "HISTORY_RETIRED"

    def __init__(self, item_id: str, *, export: str, head: str, bids: int, retired_us: int) -> None:
        self.item_id = item_id
        self.export = export
        self.head = head
        self.bids = bids
        self.retired_us = retired_us
        super().__init__(
            f"item {item_id!r} was over long ago, and its {bids} bids are in the export {export} alone; "
            "ask the operator for it"
        )


class BidStruck(BiddingError):
    code = "BID_STRUCK"

    def __init__(self, item_id: str, bid_id: str) -> None:
        self.item_id = item_id
        self.bid_id = bid_id
        super().__init__(f"bid {bid_id!r} on item {item_id!r} is struck already; nothing was changed")


class LeadLacksCredit(BiddingError):
    """Without the bid somebody would lead whose spending limit does not allow it; nothing was changed.

    ``missing``: how much credit the item's shard lacks for that lead, in minor units of ``currency``.
    """

    code = "LEAD_LACKS_CREDIT"

    def __init__(self, item_id: str, user_id: str, currency: str, missing: int) -> None:
        self.item_id = item_id
        self.user_id = user_id
        self.currency = currency
        self.missing = missing
        super().__init__(
            f"without this bid {user_id!r} would lead item {item_id!r} beyond their spending limit; nothing was "
            "changed: strike their bids on this item first, or raise their limit. If they go on bidding, block them "
            "on it or pause it meanwhile"
        )


class ItemExists(BiddingError):
    code = "ITEM_EXISTS"

    def __init__(self, item_id: str) -> None:
        self.item_id = item_id
        super().__init__(f"item {item_id!r} exists already; choose another id")


class TooManyRulings(BiddingError):
    """The bound on the number of rulings on bidders is reached; nothing was changed."""

    code = "TOO_MANY_RULINGS"

    def __init__(self, most: int) -> None:
        self.most = most
        super().__init__(
            f"something was ruled on {most} bidders already, which is the most; take back what is not needed"
        )


class StateConflict(BiddingError):
    """The item's state does not allow the operation."""

    code = "STATE_CONFLICT"

    def __init__(self, item_id: str, status: str, operation: str) -> None:
        self.item_id = item_id
        self.status = status
        super().__init__(f"item {item_id!r} is {status}: {operation} is not possible")


class EndStays(StateConflict):
    """The end of the item cannot be moved there; ``reason`` says why."""

    def __init__(self, item_id: str, reason: str) -> None:
        self.item_id = item_id
        self.reason = reason
        BiddingError.__init__(self, f"the end of item {item_id!r} is not moved: {reason}")


class Unavailable(BiddingError):
    """Nothing was changed; the request may be sent again after ``retry_after_s`` seconds."""

    code = "UNAVAILABLE"

    def __init__(self, reason: str, *, retry_after_s: int = 1) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(reason)


class Overloaded(Unavailable):
    """A bounded queue is full."""

    code = "OVERLOADED"


class OutboxFull(Unavailable):
    """The archive has been unreachable for so long that the outbox is full."""

    code = "OUTBOX_FULL"


class ShardLost(Unavailable):
    """Redis has lost the shard or the item; it must be rebuilt from the archive before anyone may bid."""

    code = "BEING_REBUILT"


class OutcomeUnknown(BiddingError):
    """The bid may or may not have been accepted: ask ``bids/by-key``, or repeat the bid with the same key."""

    code = "OUTCOME_UNKNOWN"

    def __init__(self, *, retry_after_s: int = 1) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(
            "the outcome of this bid is not known yet; repeat it with the same Idempotency-Key or bid_id, "
            "or ask GET /api/v1/bids/by-key/{key}"
        )
