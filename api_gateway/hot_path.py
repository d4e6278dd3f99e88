"""The bid endpoint, a thin ASGI route in front of FastAPI.

``POST /api/v1/items/{id}/bid`` is the one call that must not pay for a framework's per-request machinery (routing,
dependencies, model building, response classes), which costs several times the decision itself. Everything else goes to
the application behind it. The endpoint is documented in the application's OpenAPI all the same (``documented.py``).

The body is decoded by msgspec and the amounts stay the text that the client sent, because every JSON decoder that makes
numbers of them goes through a binary float.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from time import perf_counter
from typing import Final, Literal

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_gateway.context import Context
from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.scripts import ItemMissing
from api_gateway.engine.items import Items
from api_gateway.limits import ClientGone, refuse
from api_gateway.problems import INTERNAL_ERROR, INTERNAL_ERROR_DETAIL, problem_of
from api_gateway.schemas import NULL, USER_ID_RULE, BidRequest, decode_body, optional_amount
from shared import names
from shared.domain.errors import AmountInvalid, BiddingError, InvalidInput, KeyReused
from shared.domain.money import DEFAULT_CURRENCY, exponent_of, format_amount
from shared.http.problems import MEDIA_TYPE, problem_body
from shared.redis_layout.item_hash import ItemState
from shared.redis_layout.verdicts import KEY_REUSED, AcceptedBid, RefusedBid, parse_verdict

logger = logging.getLogger(__name__)

_PREFIX: Final = "/api/v1/items/"
_SUFFIX: Final = "/bid"
_JSON: Final = (b"content-type", b"application/json")
_PROBLEM: Final = (b"content-type", MEDIA_TYPE.encode())

BID_BYTES_MAX: Final = 8 * 1024
"""Largest body of a bid; its longest legal form is well under 1 KiB."""


_decoder: Final = msgspec.json.Decoder(BidRequest)
_EXAMPLE: Final = '{"user_id": "ada", "amount": 12.50}'

# Bid ids that the client did not make: a random prefix per process and a counter, without a system call per bid.
# Everybody sees these ids and can guess the next one, so they begin with a mark that no client can send.
_BID_ID_PREFIX: Final = f"{names.MADE_BID_ID_MARK}{secrets.token_hex(9)}-"
_bid_numbers: Final = itertools.count(1)

REFUSALS: Final[dict[str, str]] = {
    "NOT_STARTED": "The auction has not started yet",
    "CLOSED": "The auction is closed",
    "PAUSED": "The auction is paused",
    "CANCELLED": "The auction was cancelled",
    "SOLD": "The item is sold",
    "OWN_ITEM": "Sellers cannot bid on their own item",
    "MAX_NOT_RAISED": "Your standing maximum is already that high; a maximum can only be raised",
}


class BodyTooLarge(InvalidInput):
    """The body of a bid is over its limit."""

    code = "BODY_TOO_LARGE"


class HotPath:
    """ASGI application: decides bids, and passes everything else on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if path.startswith(_PREFIX) and path.endswith(_SUFFIX):
                item_id = path[len(_PREFIX) : -len(_SUFFIX)]
                # With a slash inside it is another route (".../items/x/bids/y/bid" is not ours); ".../items/bid" is an
                # item.
                if item_id and "/" not in item_id:
                    await self._bid(item_id, scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _bid(self, item_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [_PROBLEM]
        try:
            if scope["method"] == "POST":
                status, body = await self._decide(item_id, scope, receive)
                headers = [_JSON]
            else:
                status, body = 405, problem_body(405, "METHOD_NOT_ALLOWED", "a bid is placed with POST")
                headers.append((b"allow", b"POST"))
        except BodyTooLarge as error:
            await refuse(413, error.code, str(error), receive, send)
            return
        except BiddingError as error:
            status, body, extra = problem_of(error)
            headers += [(name.encode(), value.encode()) for name, value in extra.items()]
        except ClientGone:
            return
        except Exception:
            logger.exception("bid on item %s", item_id)
            status, body = 500, problem_body(500, INTERNAL_ERROR, INTERNAL_ERROR_DETAIL)
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _decide(self, item_id: str, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        # What the lifespan has opened; the server gives it to every request.
        context: Context = scope["state"]["context"]
        began_s = perf_counter()
        items = context.items
        header_key = _idempotency_key(scope)
        body = await self._read(receive)
        exponent = items.known.get(item_id)
        if exponent is None and not names.is_item_id(item_id):
            raise InvalidInput("item id: 1 to 64 characters of A-Z a-z 0-9 _ -")
        # Everything that can be wrong without knowing the item is refused before Redis is asked.
        sent = _decode(body)
        bid_id, key, key_is_bid_id = _identify(sent, header_key)
        is_new = False
        if exponent is None:
            exponent = await items.find_exponent(item_id)
            if exponent is None:
                # In its currency other amounts may be valid, so amounts are checked once it is known that it is new.
                closed = await items.surely_left(item_id)
                if closed is not None:
                    bid = _pending(item_id, sent, bid_id, key, key_is_bid_id, exponent_of(closed.terms.currency))
                    return await _answer_closed(items, closed, bid)
                # An item that is opened by its first bid has the default currency; a bid that is malformed in it must
                # not open anything.
                exponent, is_new = exponent_of(DEFAULT_CURRENCY), True
        if is_new:
            _amounts(sent, exponent)
            await items.open_by_default(item_id)
            # Somebody else may have opened it meanwhile, in another currency.
            exponent = await items.find_exponent(item_id)
            if exponent is None:
                await items.gone(item_id)
        bid = _pending(item_id, sent, bid_id, key, key_is_bid_id, exponent)
        context.committer.place(bid)
        try:
            line = await bid.verdict
        except ItemMissing:
            # It was there a moment ago, since its currency is known. Only closed items leave.
            closed = await items.left(item_id)
            if closed is None:
                await items.gone(item_id)
            return await _answer_closed(items, closed, bid)
        answer = render(line, item_id, exponent, bid.amount, key)
        context.bid_seconds.observe(perf_counter() - began_s)
        return answer

    async def _read(self, receive: Receive) -> bytes:
        """The whole body; one message in all but odd cases. How long it may take is bounded by the protocol."""
        body = b""
        while True:
            message: Message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece: bytes = message.get("body", b"")
            body = body + piece if body else piece
            if len(body) > BID_BYTES_MAX:
                raise BodyTooLarge(f"a bid's body may have {BID_BYTES_MAX} bytes")
            if not message.get("more_body", False):
                return body


def _idempotency_key(scope: Scope) -> str | None:
    key: str | None = None
    for name, value in scope["headers"]:
        if name == b"idempotency-key":
            if key is not None:
                raise InvalidInput("Idempotency-Key: send it once")
            key = value.decode("latin-1")
            if not names.is_idempotency_key(key):
                raise InvalidInput("Idempotency-Key: 1 to 255 visible ASCII characters, not all of them dots")
        elif name == b"content-length" and int(value) > BID_BYTES_MAX:
            raise BodyTooLarge(f"a bid's body may have {BID_BYTES_MAX} bytes")
    return key


def _decode(body: bytes) -> BidRequest:
    sent = decode_body(_decoder, body, _EXAMPLE)
    if not names.is_user_id(sent.user_id):
        raise InvalidInput(USER_ID_RULE)
    if sent.amount == NULL:
        raise AmountInvalid("null", "must be a JSON number, for example 12.50", "amount")
    if sent.amount is msgspec.UNSET and (sent.max_amount is msgspec.UNSET or sent.max_amount == NULL):
        raise InvalidInput("amount is missing: send amount, max_amount or both")
    return sent


def _amounts(sent: BidRequest, exponent: int) -> tuple[int | None, int | None]:
    """Amount and maximum in minor units, in a currency with ``exponent`` decimals."""
    amount = optional_amount(sent.amount, exponent, "amount")
    maximum = optional_amount(sent.max_amount, exponent, "max_amount")
    if amount is not None and maximum is not None and maximum < amount:
        raise InvalidInput("max_amount must be at least amount")
    return amount, maximum


def _identify(sent: BidRequest, header_key: str | None) -> tuple[str, str | None, bool]:
    """The bid id, its idempotency key, and whether they are the same."""
    if sent.bid_id is None:
        return f"{_BID_ID_PREFIX}{next(_bid_numbers):x}", header_key, False
    if not names.is_bid_id(sent.bid_id):
        raise InvalidInput(
            "bid_id: ids of this kind are made by the gateway; leave bid_id out, or make your own"
            if names.is_made_bid_id(sent.bid_id)
            else "bid_id: 1 to 64 characters of A-Z a-z 0-9 _ . : @ -, not all of them dots"
        )
    if header_key is not None and header_key != sent.bid_id:
        raise InvalidInput("Idempotency-Key and bid_id differ; send one of them, or the same value in both")
    return sent.bid_id, sent.bid_id, True


def _pending(
    item_id: str, sent: BidRequest, bid_id: str, key: str | None, key_is_bid_id: bool, exponent: int
) -> PendingBid:
    amount, maximum = _amounts(sent, exponent)
    verdict = asyncio.get_running_loop().create_future()
    return PendingBid(item_id, sent.user_id, bid_id, amount, maximum, key, key_is_bid_id, verdict)


async def _answer_closed(items: Items, closed: ItemState, bid: PendingBid) -> tuple[int, bytes]:
    """What a bid is answered on an item that was closed and has left Redis: the same as before it left."""
    line = await items.closed.answer(closed, bid)
    return render(line, bid.item_id, exponent_of(closed.terms.currency), bid.amount, bid.key)


def render(line: bytes, item_id: str, exponent: int, amount: int | None, key: str | None) -> tuple[int, bytes]:
    """Status and body that answer a verdict; the same verdict always gives the same bytes.

    Raises:
        KeyReused: the key was used before with other content.
    """
    verdict = parse_verdict(line)
    if verdict == KEY_REUSED:
        raise KeyReused(key or "")
    if isinstance(verdict, AcceptedBid):
        return 201, _render_accepted(verdict, item_id, exponent)
    assert isinstance(verdict, RefusedBid)
    return 200, _render_refused(verdict, exponent, amount)


def _json_bool(value: bool) -> Literal["true", "false"]:
    return "true" if value else "false"


def _render_accepted(verdict: AcceptedBid, item_id: str, exponent: int) -> bytes:
    if verdict.raised:
        message = "Your maximum is raised"
    elif verdict.kind == "buy_now":
        message = "Sold to you at the buy-now price"
    elif verdict.leads:
        message = "Bid accepted"
    else:
        message = "Bid accepted, but another bidder's maximum is higher"
    # Ids are free of quotes by their patterns, so the text can be put together as it is.
    return (
        f'{{"success":true,"message":"{message}","current_bid":{format_amount(verdict.current_bid, exponent)},'
        f'"your_bid":{format_amount(verdict.your_bid, exponent)},"is_highest":{_json_bool(verdict.leads)},'
        f'"event_id":"{names.event_id(item_id, verdict.epoch, verdict.seq)}","bid_id":"{verdict.bid_id}",'
        f'"seq":{verdict.seq},"min_next_bid":{format_amount(verdict.min_next_bid, exponent)},'
        f'"reserve_met":{_json_bool(verdict.reserve_met)}}}'
    ).encode()


def _render_refused(verdict: RefusedBid, exponent: int, amount: int | None) -> bytes:
    minimum = format_amount(verdict.min_next_bid, exponent)
    message = REFUSALS.get(verdict.code) or f"Too low, bid at least {minimum}"
    yours = "null" if amount is None else format_amount(amount, exponent)
    return (
        f'{{"success":false,"code":"{verdict.code}","message":"{message}",'
        f'"current_bid":{format_amount(verdict.current_bid, exponent)},"your_bid":{yours},"is_highest":false,'
        f'"min_next_bid":{minimum},"you_lead":{_json_bool(verdict.leads)},'
        f'"reserve_met":{_json_bool(verdict.reserve_met)}}}'
    ).encode()
