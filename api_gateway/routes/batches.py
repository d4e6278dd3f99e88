"""``/api/v1/bids:batch``: many bids in one request, for market makers, imports and load runs.

Each bid has the verdict that it would have alone. The bids on one item are decided in their order; items do not wait
for each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Final, NamedTuple

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import UNSET

from api_gateway.context import Context, context_of
from api_gateway.contract.documented import BatchAnswer, json_content, request_body
from api_gateway.contract.problems import problem_of
from api_gateway.contract.schemas import BatchedBid, BidBatch, decode_body
from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.errors import ItemMissing
from api_gateway.hot_path import SentBid, answer_missing, check_item_id, decide, render
from api_gateway.identity.access import Permit, permit_of
from shared.domain.errors import BiddingError, InvalidInput
from shared.http.pieces import InPieces
from shared.http.problems import INTERNAL_ERROR, INTERNAL_ERROR_DETAIL, problem_body

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/api/v1", tags=["bids"])

PATH: Final = f"{router.prefix}/bids:batch"
BYTES_MAX: Final = 256 * 1024
"""Largest body. 500 bids with the longest ids and amounts have less."""

_NEW_ITEMS_AT_ONCE: Final = 16
"""The most items of one request that are looked for at once: those that this process does not know yet, or that have
left Redis."""
_EXAMPLE: Final = {
    "bids": [
        {"item_id": "demo-1", "user_id": "ada", "amount": 12.5, "bid_id": "ada-1"},
        {"item_id": "demo-2", "user_id": "ada", "max_amount": 40, "bid_id": "ada-2"},
    ]
}
_decoder: Final = msgspec.json.Decoder(BidBatch)

Answer = tuple[int, bytes]


@router.post(
    "/bids:batch",
    summary="Place many bids",
    responses={
        200: {"content": json_content(BatchAnswer), "description": "The answers, in the order of the bids"},
        **{status: {} for status in (422, 503)},
    },
    openapi_extra={"requestBody": request_body(BidBatch, _EXAMPLE)},
)
async def place_bids(request: Request) -> Response:
    """Up to 500 bids. Each is decided for itself, and answered with the `status` and the body that it would have alone.

    Those on one item are decided in their order. A body that is malformed is refused as a whole, and no bid of it
    is placed. Give each bid a `bid_id`: then the whole request can be repeated.
    """
    context, permit = context_of(request), permit_of(request)
    batch = decode_body(_decoder, await request.body(), msgspec.json.encode(_EXAMPLE).decode())
    if permit.own_id is None and any(bid.user_id is UNSET for bid in batch.bids):
        # The user may be left out only where a token says who calls.
        raise InvalidInput("Object missing required field `user_id` - at `$.bids[...]`")
    permit.account.charge(len(batch.bids) - 1)
    answers = await _answer_all(context, permit, batch.bids)
    told = b",".join(
        b'{"item_id":%b,"status":%d,"answer":%b}' % (msgspec.json.encode(bid.item_id), status, body)
        for bid, (status, body) in zip(batch.bids, answers, strict=True)
    )
    return InPieces(b'{"results":[%b]}' % told, media_type="application/json")


async def _answer_all(context: Context, permit: Permit, bids: Sequence[BatchedBid]) -> list[Answer]:
    answers: dict[int, Answer] = {}
    placed: list[_Placed] = []
    new_items: dict[str, list[int]] = {}
    for index, bid in enumerate(bids):
        exponent = context.items.known.get(bid.item_id)
        if exponent is None or bid.item_id in new_items:
            # The first of them finds the item, or opens it, and the others come after it.
            new_items.setdefault(bid.item_id, []).append(index)
        elif (refused := _place(context, permit, bid, index, exponent, placed)) is not None:
            answers[index] = refused
    if new_items:
        turns = asyncio.Semaphore(_NEW_ITEMS_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for item_id, indices in new_items.items():
                group.create_task(_answer_new(context, permit, bids, item_id, indices, turns, answers))
    await _take_verdicts(context, placed, answers)
    return [answers[index] for index in range(len(bids))]


class _Placed(NamedTuple):
    """A bid that waits for its verdict: which of the request it is, and the decimals of its item's currency."""

    at: int
    bid: PendingBid
    exponent: int


def _place(
    context: Context, permit: Permit, bid: BatchedBid, index: int, exponent: int, placed: list[_Placed]
) -> Answer | None:
    """Place a bid on an item that is known; the answer where it is refused at once."""
    try:
        pending = SentBid.of(bid, permit).pending(bid.item_id, exponent)
        context.committer.place(pending)
        if context.traces is not None:
            context.traces.join(pending)
    except BiddingError as error:
        return problem_of(error)[:2]
    placed.append(_Placed(index, pending, exponent))
    return None


async def _answer_new(
    context: Context,
    permit: Permit,
    bids: Sequence[BatchedBid],
    item_id: str,
    indices: Sequence[int],
    turns: asyncio.Semaphore,
    answers: dict[int, Answer],
) -> None:
    """The bids on an item that this process does not know yet, in their order."""
    placed: list[_Placed] = []
    for index in indices:
        exponent = context.items.known.get(item_id)
        if exponent is None:
            async with turns:
                answers[index] = await _told(_decide(context, permit, bids[index]))
        elif (refused := _place(context, permit, bids[index], index, exponent, placed)) is not None:
            answers[index] = refused
    await _take_verdicts(context, placed, answers)


async def _take_verdicts(context: Context, placed: Sequence[_Placed], answers: dict[int, Answer]) -> None:
    """The answers to bids that were placed, or the problems of the errors that they raise, so that the other bids keep
    their answers."""
    missing: dict[str, list[_Placed]] = {}
    for one in placed:
        bid = one.bid
        try:
            # No coroutine in between: most verdicts of a request come with the first one.
            answers[one.at] = render(await bid.verdict, bid.item_id, one.exponent, bid.amount, bid.key)
        except ItemMissing:
            missing.setdefault(bid.item_id, []).append(one)
        except BiddingError as error:
            answers[one.at] = problem_of(error)[:2]
        except Exception:
            answers[one.at] = _failed()
    if not missing:
        return
    # The archive tells of items that have left Redis, and may take seconds.
    turns = asyncio.Semaphore(_NEW_ITEMS_AT_ONCE)

    async def answer(of_item: Sequence[_Placed]) -> None:
        for one in of_item:
            async with turns:
                answers[one.at] = await _told(answer_missing(context.items, one.bid))

    async with asyncio.TaskGroup() as group:
        for of_item in missing.values():
            group.create_task(answer(of_item))


async def _decide(context: Context, permit: Permit, bid: BatchedBid) -> Answer:
    check_item_id(bid.item_id)
    return await decide(context, bid.item_id, SentBid.of(bid, permit))


async def _told(answer: Coroutine[None, None, Answer]) -> Answer:
    """The answer, or the problem of the error that it raises, so that the other bids keep their answers."""
    try:
        return await answer
    except BiddingError as error:
        return problem_of(error)[:2]
    except Exception:
        return _failed()


def _failed() -> Answer:
    """Log the error. Call it while the exception is being handled. Returns the answer."""
    logger.exception("a bid of a batch")
    return 500, problem_body(500, INTERNAL_ERROR, INTERNAL_ERROR_DETAIL)
