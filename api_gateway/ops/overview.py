"""The answers of ``/api/v1/ops``, as OpenAPI describes them and as they are encoded."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from api_gateway.contract.schemas import Amount, Count, Currency, Instant, ItemId, UserId


class Part(msgspec.Struct):
    """A service, or one process of it."""

    name: str
    status: Annotated[str, Meta(description="`ready`, `degraded`, `unavailable`, or `unreachable`: it says nothing.")]
    details: Annotated[dict[str, str], Meta(description="What its `/ready` says beside that, unless all is well.")]
    figures: Annotated[dict[str, float], Meta(description="Of its `/metrics`; counters and gauges.")]


class HotItem(msgspec.Struct):
    """An item on which bids come fast."""

    item_id: ItemId
    bids_per_s: float


class Overview(msgspec.Struct):
    """How the platform is now."""

    time: Instant
    parts: list[Part]
    hot_items: Annotated[list[HotItem], Meta(description="Busiest first, of the last 10 to 20 s of this gateway.")]


class DeadLetter(msgspec.Struct):
    """A message that could not be archived."""

    id: Count
    reason: Annotated[str, Meta(description="`poison`, `clash`, `former_epoch` or `retired`.")]
    detail: str
    subject: str
    at: Instant


class DeadLetters(msgspec.Struct):
    """The newest ones, and how many there are."""

    count: Count
    dead_letters: list[DeadLetter]


class Act(msgspec.Struct):
    """What somebody did to the platform. `login`: who of the database's logins wrote it down."""

    id: Count
    act: Annotated[
        str,
        Meta(
            description="`revoke_tokens`, `revoke_token`, `create_api_key`, `revoke_api_key`, `retry_dead_letter` or "
            "`recover_shard`."
        ),
    ]
    target: Annotated[str, Meta(description="A user, the `jti` of a token, or the id of the key, letter or shard.")]
    by: str
    login: str
    reason: str
    at: Instant


class ActsPage(msgspec.Struct):
    """Acts, newest first."""

    acts: list[Act]
    next_before: Annotated[Count | None, Meta(description="`before` of the next page; null on the last one.")]


class Operation(msgspec.Struct):
    """What somebody did to an item. `bid_id`: of a void. `end_time`: to when the end was moved."""

    epoch: Count
    seq: Count
    type: str
    by: str | None
    reason: str | None
    bid_id: str | None
    at: Instant
    end_time: Instant | None


class RulingMade(msgspec.Struct):
    """What somebody ruled on a bidder. `user_id`: null for everybody. `seller_id`: whose lots alone it is about."""

    user_id: UserId | None
    seller_id: UserId | None
    ruling: Annotated[str, Meta(description="`approve`, `unapprove`, `block`, `unblock`, `limit` or `unlimit`.")]
    amount: Annotated[Amount | None, Meta(description="Of a limit.")]
    currency: Annotated[Currency | None, Meta(description="Of the item, or of a limit over all items.")]
    by: str
    reason: str
    at: Instant


class RetiredLog(msgspec.Struct):
    """Where the bids of a retired item, and what was done to it, can be read: in its export alone."""

    export: Annotated[str, Meta(description="Its name in the operator's bucket or folder.")]
    head: Annotated[str, Meta(description="The hash of the last event, in hex.")]
    bids: Count
    retired_at: Instant


class AuditPage(msgspec.Struct):
    """Operations on one item, and rulings on its bidders, each newest first. `partial` is true while something may be
    missing: the archive or Redis cannot be asked, or too much waits for the archive."""

    operations: list[Operation]
    rulings: list[RulingMade]
    partial: bool
    retired: Annotated[
        RetiredLog | None,
        Meta(description="Of a retired item: where its operations are told, of which none are here."),
    ] = None


class RulingsPage(msgspec.Struct):
    """Rulings, newest first."""

    rulings: list[RulingMade]
