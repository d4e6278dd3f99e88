"""``/api/v1/ops``, and the audit of an item: for the operators' console."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic.json_schema import SkipJsonSchema

from api_gateway.changes.new_items import checked_item_id
from api_gateway.context import context_of
from api_gateway.contract.documented import json_content
from api_gateway.contract.schemas import USER_ID_RULE
from api_gateway.ops.overview import (
    Act,
    ActsPage,
    AuditPage,
    DeadLetter,
    DeadLetters,
    HotItem,
    Operation,
    Overview,
    Part,
    RetiredLog,
    RulingMade,
    RulingsPage,
)
from api_gateway.routes.health import own_part
from api_gateway.routes.items import ItemIdPath
from shared import names
from shared.domain.errors import InvalidInput
from shared.redis_layout.item_hash import amount_json
from shared.redis_layout.rulings import EVERYBODY
from shared.timefmt import to_rfc3339

router = APIRouter(prefix="/api/v1", tags=["operations"])

HOT_MAX: Final = 20
LISTED_MAX: Final = 200

_ID_MAX: Final = 2**53 - 1
Before = Annotated[
    int | SkipJsonSchema[None],
    Query(
        ge=1,
        le=_ID_MAX,
        description="Acts before the one with this `id`.",
        json_schema_extra={"minimum": 1, "maximum": _ID_MAX},
    ),
]
Limit = Annotated[int, Query(ge=1, le=LISTED_MAX, description="How many at most.")]
RuledId = Annotated[
    str | SkipJsonSchema[None],
    Query(
        description="The bidder; without it what was ruled on everybody: whether approval is needed.",
        json_schema_extra={"pattern": names.USER_ID_PATTERN, "examples": ["ann"]},
    ),
]


@router.get(
    "/ops/overview",
    summary="How are the parts?",
    responses={200: {"description": "The parts, and what is busy", "content": json_content(Overview)}},
)
async def get_overview(request: Request) -> Response:
    """Every part that `OPS_PARTS` names, with what its `/ready` says, and the busiest items of this gateway.

    A part is asked within a second; what it said is at most a second old. Counters only rise: the difference between
    two answers, by their `time`, is a rate.
    """
    context = context_of(request)
    others = await context.parts.ask()
    is_listed = any(each.name.startswith("api_gateway") for each in others)
    parts = [*([] if is_listed else [await own_part(context)]), *others]
    hot = context.hot_items.top(HOT_MAX, asyncio.get_running_loop().time())
    return _told(
        Overview(
            time=to_rfc3339(time.time_ns() // 1000),
            parts=[Part(each.name, each.status, each.details, each.figures) for each in parts],
            hot_items=[HotItem(each.item_id, each.bids_per_s) for each in hot],
        )
    )


@router.get(
    "/ops/dead-letters",
    summary="What could not be archived",
    responses={200: {"description": "The newest ones", "content": json_content(DeadLetters)}, 422: {}, 503: {}},
)
async def get_dead_letters(request: Request, limit: Limit = 50) -> Response:
    """Messages that could not be stored as what they say they are, newest first: `bidding dead-letters` has more."""
    count, rows = await context_of(request).archive.dead_letters(limit)
    letters = [
        DeadLetter(row["id"], row["reason"], row["detail"], row["subject"], to_rfc3339(row["at_us"])) for row in rows
    ]
    return _told(DeadLetters(count, letters))


@router.get(
    "/ops/acts",
    summary="Who did what to the platform",
    responses={200: {"description": "Acts, newest first", "content": json_content(ActsPage)}, 422: {}, 503: {}},
)
async def get_acts(request: Request, before: Before = None, limit: Limit = 50) -> Response:
    """Tokens and API keys that were made or revoked, dead letters that were tried again, shards that were rebuilt, as
    they are archived: who did it, and why. What was done to an item is in the item's audit."""
    rows = await context_of(request).archive.acts(before, limit)
    acts = [
        Act(
            id=row["act_id"],
            act=row["act"],
            target=row["target"],
            by=row["actor"],
            login=row["login"],
            reason=row["reason"],
            at=to_rfc3339(row["at_us"]),
        )
        for row in rows
    ]
    return _told(ActsPage(acts, acts[-1].id if len(acts) == limit else None))


@router.get(
    "/items/{item_id}/audit",
    summary="Who operated the item",
    responses={
        200: {"description": "Operations, newest first", "content": json_content(AuditPage)},
        **{status: {} for status in (422, 503)},
    },
)
async def get_audit(request: Request, item_id: ItemIdPath, limit: Limit = 50) -> Response:
    """Pauses, resumptions, later ends, the withdrawal, voids, and rulings on its bidders, from the moment they were
    made: who did it, and why.

    For a retired item `retired` names the export, which alone has the operations; the rulings on its bidders are here
    as before.
    """
    page = await context_of(request).audit.page(checked_item_id(item_id), limit)
    operations = [
        Operation(
            epoch=row["epoch"],
            seq=row["seq"],
            type=row["type"],
            by=row["by"],
            reason=row["reason"],
            bid_id=row["bid_id"],
            at=to_rfc3339(row["at_us"]),
            end_time=None if row["end_us"] is None else to_rfc3339(row["end_us"]),
        )
        for row in page.operations
    ]
    rulings = [_ruling(row) for row in page.rulings]
    if (retired := page.retired) is None:
        return _told(AuditPage(operations, rulings, page.partial))
    # Some operations may have been read before they were removed.
    at = to_rfc3339(retired.retired_at)
    log = RetiredLog(retired.export, retired.head, retired.bids, at)
    return _told(AuditPage([], rulings, page.partial, log))


@router.get(
    "/ops/rulings",
    summary="Who ruled on a bidder for all items",
    responses={200: {"description": "Rulings, newest first", "content": json_content(RulingsPage)}, 422: {}, 503: {}},
)
async def get_rulings(request: Request, user_id: RuledId = None, limit: Limit = 50) -> Response:
    """Approvals, blocks and spending limits that hold for all items or for all of a seller, as they are archived: who
    ruled, and why. Those on an item are in the item's audit."""
    if user_id is not None and not names.is_user_id(user_id):
        raise InvalidInput(USER_ID_RULE)
    rows = await context_of(request).archive.rulings_on_all(EVERYBODY if user_id is None else user_id, limit)
    return _told(RulingsPage([_ruling(row) for row in rows]))


def _ruling(row: Any) -> RulingMade:
    amount, currency = row["amount"], row["currency"]
    return RulingMade(
        user_id=row["user_id"],
        seller_id=row["seller_id"],
        ruling=row["ruling"],
        amount=None if amount is None or currency is None else amount_json(amount, currency),
        currency=currency,
        by=row["by"],
        reason=row["reason"],
        at=to_rfc3339(row["at_us"]),
    )


def _told(answer: Any) -> Response:
    return Response(msgspec.json.encode(answer), 200, {"cache-control": "no-store"}, "application/json")
