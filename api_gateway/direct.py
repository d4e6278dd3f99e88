"""The endpoints that are called all the time, answered without ASGI (:mod:`shared.http.protocols.direct`): a bid, one
item, and a new item.

Requests that are not plain take the other road to the same functions: bids by ``hot_path.py``, the others by
``routes/items.py``.
"""

from __future__ import annotations

import asyncio
import logging
import re
from asyncio import Future
from collections.abc import Coroutine, Mapping
from functools import partial
from time import perf_counter
from typing import Final

import msgspec

from api_gateway.changes.items_with_images import create_item
from api_gateway.changes.new_items import read_new_item
from api_gateway.context import Context
from api_gateway.contract.problems import problem_of
from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.committer import SHED
from api_gateway.engine.bids.errors import ItemMissing
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.creation.new_item import NewItem
from api_gateway.engine.item_reads import Absent, Reading
from api_gateway.hot_path import BID_BYTES_MAX, PLACE_BID, SentBid, answer_missing, decide, read_key, render
from api_gateway.identity.access import Permit
from api_gateway.tracing.bids import BID_ROUTE
from api_gateway.tracing.one_bid import enter
from shared.domain.errors import BiddingError, Overloaded
from shared.http.protocols.direct import JSON, PROBLEM, DirectRequest, Endpoint
from shared.logs import about
from shared.redis_layout.item_hash import ItemState, public_item

logger = logging.getLogger(__name__)

BODY_BYTES_MAX: Final = BID_BYTES_MAX
"""Largest body that comes this way. Larger ones, of new items, go to the framework, which counts the bytes that it
holds for all clients; here the number of connections bounds them."""
_ITEMS: Final = b"/api/v1/items"
_PREFIX: Final = _ITEMS + b"/"
# Other spellings of an id, such as percent-encoded ones, are for the framework.
_BID: Final = re.compile(_PREFIX + rb"([A-Za-z0-9_-]{1,64})/bid")
# The one query that the pages use.
_ITEM: Final = re.compile(_PREFIX + rb"([A-Za-z0-9_-]{1,64})(?:\?may_open=false)?")


def _lines(headers: Mapping[str, str]) -> bytes:
    return b"".join(b"%b: %b\r\n" % (name.encode(), value.encode()) for name, value in headers.items())


_SHED: Final = object()
"""What was found out about a bid that is shed. It is told so when its body has come, which nobody reads."""
_SHED_STATUS, _SHED_BODY, _shed = problem_of(Overloaded(SHED))
_SHED_HEADERS: Final = PROBLEM + _lines(_shed)


class DirectRoad:
    """Answers requests. What cannot be answered at once goes on in a task."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._bid = Endpoint(self._place_bid, BODY_BYTES_MAX, _admit_bid)
        self._item = Endpoint(self._read_item, 0, partial(_admit, "get_item", changes=False))
        self._new_item = Endpoint(self._create_item, BODY_BYTES_MAX, partial(_admit, "create_item"))

    def find(self, method: bytes, target: bytes) -> Endpoint | None:
        """See :data:`shared.http.protocols.direct.Find`."""
        if method == b"POST":
            if target == _ITEMS:
                return self._new_item
            return self._bid if _BID.fullmatch(target) is not None else None
        if method == b"GET":
            return self._item if _ITEM.fullmatch(target) is not None else None
        return None

    def _place_bid(self, request: DirectRequest) -> None:
        context: Context = request.state["context"]
        if request.admitted is _SHED:
            request.body, request.headers = b"", {}  # it may wait
            context.committer.refusals.add(partial(_tell_shed, request))
            return
        began_s = perf_counter()
        item_id = request.target[len(_PREFIX) : -len("/bid")].decode()
        try:
            key = request.headers.get(b"idempotency-key")
            permit = _permit_of(request)
            if request.is_late:
                context.access.check_again(permit)
            sent = SentBid.read(request.body, None if key is None else read_key(key), permit)
            exponent = context.items.known.get(item_id)
            if exponent is None:
                self._in_background(_decide(context, item_id, sent, request, began_s))
                return
            bid = sent.pending(item_id, exponent)
            context.committer.place(bid)
        except BiddingError as error:
            _refuse(request, error)
            return

        def answer(verdict: PendingVerdict) -> None:
            try:
                status, body = render(verdict.result(), item_id, exponent, bid.amount, bid.key)
            except ItemMissing:
                self._in_background(_answer_missing(context, bid, request, began_s))
            except BiddingError as error:
                _refuse(request, error)
            except Exception:
                _fail(request, "" if bid.trace is None else bid.trace.request.trace_id)
            else:
                context.bid_seconds.observe(perf_counter() - began_s)
                near = permit.account.near
                request.answer(status, JSON if near is None else _lines(near.headers) + JSON, body)

        bid.verdict.add_done_callback(answer)
        if context.traces is not None:
            context.traces.follow(bid, request.headers.items(), request.peer, began_s)

    def _read_item(self, request: DirectRequest) -> None:
        context: Context = request.state["context"]
        name, only_known, _ = request.target[len(_PREFIX) :].partition(b"?")
        item_id = name.decode()

        def answer(found: Future[Reading | Absent]) -> None:
            try:
                reading = found.result()
                if isinstance(reading, Absent):
                    self._in_background(_read_absent(context, item_id, reading, request, may_open=not only_known))
                else:
                    near = _permit_of(request).account.near
                    request.answer(200, JSON if near is None else _lines(near.headers) + JSON, reading.body)
            except BiddingError as error:
                _refuse(request, error)
            except Exception:
                _fail(request)

        context.items.reads.read(item_id).add_done_callback(answer)

    def _create_item(self, request: DirectRequest) -> None:
        context: Context = request.state["context"]
        try:
            if request.is_late:
                context.access.check_again(_permit_of(request))
            item = read_new_item(request.body, _permit_of(request), context.images.hosts)
        except BiddingError as error:
            _refuse(request, error)
            return
        location = b"location: %b%b\r\n" % (_PREFIX, item.terms.item_id.encode())
        if item.image_urls:
            self._in_background(_create_with_images(context, item, location, request))
            return

        def answer(opened: Future[ItemState]) -> None:
            try:
                body = msgspec.json.encode(public_item(opened.result()))
            except BiddingError as error:
                _refuse(request, error)
            except Exception:
                _fail(request)
            else:
                request.answer(201, location + _near(request) + JSON, body)

        context.items.openings.open(item).add_done_callback(answer)

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name="direct-answer")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _admit_bid(request: DirectRequest) -> None:
    """Nothing is looked at of a bid that is shed: whoever has more to do than it can does as little as that allows."""
    context: Context = request.state["context"]
    if context.committer.sheds():
        request.admitted = _SHED
    else:
        _admit(PLACE_BID, request)


def _admit(call: str, request: DirectRequest, *, changes: bool = True) -> None:
    """Refuse the request before its body comes, if the caller may not do this or has asked for too much."""
    context: Context = request.state["context"]
    try:
        if changes:
            context.pages.check_named(request.headers)
        request.admitted = context.permit_named(call, request.headers, request.peer)
    except BiddingError as error:
        _refuse(request, error)


def _permit_of(request: DirectRequest) -> Permit:
    permit = request.admitted
    assert isinstance(permit, Permit), "the request was admitted"
    return permit


async def _decide(context: Context, item_id: str, sent: SentBid, request: DirectRequest, began_s: float) -> None:
    """A bid on an item that this process does not know yet."""
    traced = None
    if context.traces is not None:
        traced = context.traces.begin(BID_ROUTE, request.headers.items(), request.peer, began_s)
        enter(traced)
    if await _tell(request, decide(context, item_id, sent)):
        context.bid_seconds.observe(perf_counter() - began_s)
    if traced is not None:
        traced.span.end()


async def _answer_missing(context: Context, bid: PendingBid, request: DirectRequest, began_s: float) -> None:
    if await _tell(request, answer_missing(context.items, bid)):
        context.bid_seconds.observe(perf_counter() - began_s)


async def _read_absent(
    context: Context, item_id: str, absent: Absent, request: DirectRequest, *, may_open: bool
) -> None:
    """An item that Redis does not have: a closed one, a new one, or none."""

    async def read() -> tuple[int, bytes]:
        found = await context.items.find_absent(item_id, absent, may_open=may_open)
        return 200, context.items.closed.body_of(found.item)

    await _tell(request, read())


async def _create_with_images(context: Context, item: NewItem, location: bytes, request: DirectRequest) -> None:
    """Create an item with images; threads look for the images."""

    async def create() -> tuple[int, bytes]:
        return 201, msgspec.json.encode(public_item(await create_item(context, item)))

    await _tell(request, create(), location)


async def _tell(request: DirectRequest, answer: Coroutine[None, None, tuple[int, bytes]], headers: bytes = b"") -> bool:
    """Send an answer, or a problem where it fails. Returns whether it was no problem."""
    try:
        status, body = await answer
    except BiddingError as error:
        _refuse(request, error)
    except Exception:
        _fail(request)
    else:
        request.answer(status, headers + _near(request) + JSON, body)
        return True
    return False


def _fail(request: DirectRequest, trace_id: str = "") -> None:
    """Log the error and answer the request. Call it while the exception is being handled."""
    found = _BID.fullmatch(request.target) or _ITEM.fullmatch(request.target)
    permit = request.admitted
    who = permit.principal.user_id if isinstance(permit, Permit) and permit.principal is not None else ""
    logger.exception(
        "%s", request.target, extra=about(item=found[1].decode() if found else "", principal=who, trace_id=trace_id)
    )
    request.fail()


def _refuse(request: DirectRequest, error: BiddingError) -> None:
    status, body, extra = problem_of(error)
    request.answer(status, PROBLEM + _lines(extra), body)


def _tell_shed(request: DirectRequest) -> bool:
    """Answer a bid that is shed. Returns whether its client was still there."""
    if request.is_gone:
        return False
    request.answer(_SHED_STATUS, _SHED_HEADERS, _SHED_BODY)
    return True


def _near(request: DirectRequest) -> bytes:
    """Headers that say how little the caller may still ask for; none while that is enough."""
    near = _permit_of(request).account.near
    return b"" if near is None else _lines(near.headers)
