"""The bid endpoint: a thin ASGI route in front of FastAPI, and what it shares with ``direct.py``.

``POST /api/v1/items/{id}/bid`` is the one call that must not pay for a framework's per-request machinery (routing,
dependencies, model building, response classes), which costs several times the decision itself. Nearly all bids do not
even come by ASGI: ``direct.py`` answers them by the functions of this file. Everything else goes to the application
behind it. The endpoint is documented in the application's OpenAPI all the same (``documented.py``).

The body is decoded by msgspec and the amounts stay the text that the client sent, because every JSON decoder that makes
numbers of them goes through a binary float.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Final

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_gateway.context import Context
from api_gateway.contract.problems import problem_of
from api_gateway.contract.schemas import NULL, USER_ID_RULE, BidRequest, decode_body, optional_amount
from api_gateway.door.foreign_pages import NotJson, OriginNotAllowed
from api_gateway.door.limits import ClientGone, refuse, refuse_with
from api_gateway.door.rates import RateLimited, peer_of
from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.committer import SHED, Committer
from api_gateway.engine.bids.errors import ItemMissing
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.items import Items
from api_gateway.identity.access import Permit
from shared import names
from shared.domain.errors import AmountInvalid, BiddingError, InvalidInput, KeyReused, Overloaded
from shared.domain.money import DEFAULT_CURRENCY, exponent_of, format_amount, format_minor
from shared.http.problems import INTERNAL_ERROR, INTERNAL_ERROR_DETAIL, MEDIA_TYPE, problem_body
from shared.identity.errors import Forbidden, KeysAway, Unauthenticated
from shared.logs import about
from shared.redis_layout.item_hash import ItemState

logger = logging.getLogger(__name__)

PLACE_BID: Final = "place_bid"
"""The name of the call in the table of :mod:`api_gateway.identity.access`."""
_PREFIX: Final = "/api/v1/items/"
_SUFFIX: Final = "/bid"
_JSON: Final = (b"content-type", b"application/json")
_PROBLEM: Final = (b"content-type", MEDIA_TYPE.encode())

BID_BYTES_MAX: Final = 8 * 1024
"""Largest body of a bid; its longest legal form is well under 1 KiB."""


_decoder: Final = msgspec.json.Decoder(BidRequest)
_EXAMPLE: Final = '{"user_id": "ada", "amount": 12.50}'

_IDS_AT_ONCE: Final = 256
_ID_DIGITS: Final = 20

REFUSALS: Final[dict[str, str]] = {
    "NOT_STARTED": "The auction has not started yet",
    "CLOSED": "The auction is closed",
    "PAUSED": "The auction is paused",
    "CANCELLED": "The auction was cancelled",
    "SOLD": "The item is sold",
    "OWN_ITEM": "Sellers cannot bid on their own item",
    "BLOCKED": "You may not bid on this item; its seller or the auction house has blocked you",
    "NOT_APPROVED": "This item takes bids of approved bidders only; ask for approval",
    "MAX_NOT_RAISED": "Your standing maximum is already that high; a maximum can only be raised",
    "LIMIT_EXCEEDED": "This is more than your limit; bid less, or ask for a higher limit",
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
                # What the lifespan has opened; the server gives it to every request.
                context: Context = scope["state"]["context"]
                began_s = perf_counter()
                if context.committer.sheds():
                    # Its connection stays.
                    await self._read(receive)
                    await _until_told(context.committer, receive)
                    raise Overloaded(SHED)
                context.pages.check(scope["headers"])
                permit = context.permit(PLACE_BID, scope["headers"], peer_of(scope))
                key = idempotency_key(scope["headers"])
                sent = await self._read(receive)
                # Otherwise a caller who holds back the last byte would be believed for as long as a body may take.
                context.access.check_again(permit)
                if item_id not in context.items.known:
                    check_item_id(item_id)
                status, body = await decide(context, item_id, SentBid.read(sent, key, permit))
                context.bid_seconds.observe(perf_counter() - began_s)
                headers = [_JSON]
                if permit.account.near is not None:
                    near = permit.account.near.headers
                    headers += [(name.encode(), value.encode()) for name, value in near.items()]
            else:
                scope["state"]["context"].rates.enter(peer_of(scope), scope["headers"])
                status, body = 405, problem_body(405, "METHOD_NOT_ALLOWED", "a bid is placed with POST")
                headers.append((b"allow", b"POST"))
        except (Unauthenticated, Forbidden, KeysAway, RateLimited, OriginNotAllowed, NotJson) as error:
            await refuse_with(*problem_of(error), receive, send)
            return
        except BodyTooLarge as error:
            await refuse(413, error.code, str(error), receive, send)
            return
        except BiddingError as error:
            status, body, extra = problem_of(error)
            headers += [(name.encode(), value.encode()) for name, value in extra.items()]
        except ClientGone:
            return
        except Exception:
            logger.exception("bid on item %s", item_id, extra=about(item=item_id))
            status, body = 500, problem_body(500, INTERNAL_ERROR, INTERNAL_ERROR_DETAIL)
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

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


async def _until_told(committer: Committer, receive: Receive) -> None:
    """Wait until a bid that is shed may be told so. Raises ClientGone where its client does not wait for so long."""
    told = asyncio.get_running_loop().create_future()

    def tell() -> bool:
        if told.done():
            return False  # nobody waits any more
        told.set_result(None)
        return True

    committer.refusals.add(tell)
    if told.done():
        return
    leaving = asyncio.create_task(_until_gone(receive), name="shed-bid")
    try:
        await asyncio.wait((told, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not told.done():
            raise ClientGone
    finally:
        told.cancel()
        leaving.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def check_item_id(item_id: str) -> None:
    """Raises InvalidInput where no item can have it."""
    if not names.is_item_id(item_id):
        raise InvalidInput("item id: 1 to 64 characters of A-Z a-z 0-9 _ -")


async def decide(context: Context, item_id: str, sent: SentBid) -> tuple[int, bytes]:
    """Decide a bid that was checked as far as that is possible without its item. Returns status and body of the answer.

    Raises:
        BiddingError: it is malformed, or cannot be decided now.
    """
    items = context.items
    exponent = items.known.get(item_id)
    is_new = False
    if exponent is None:
        exponent = await items.find_exponent(item_id)
        if exponent is None:
            # In its currency other amounts may be valid, so amounts are checked once it is known that it is new.
            closed = await items.surely_left(item_id)
            if closed is not None:
                return await _answer_closed(items, closed, sent.pending(item_id, exponent_of(closed.terms.currency)))
            # The item may have come back while the archive was asked.
            exponent = await items.find_exponent(item_id)
        if exponent is None:
            # An item that is opened by its first bid has the default currency; a bid that is malformed in it must
            # not open anything.
            exponent, is_new = exponent_of(DEFAULT_CURRENCY), True
    if is_new:
        _amounts(sent.request, exponent)
        if context.committer.sheds():
            raise Overloaded(SHED)  # or there would be an item that nobody wants
        await items.open_by_default(item_id)
        # Somebody else may have opened it meanwhile, in another currency.
        exponent = await items.find_exponent(item_id)
        if exponent is None:
            await items.gone(item_id)
    bid = sent.pending(item_id, exponent)
    context.committer.place(bid)
    if context.traces is not None:
        context.traces.join(bid)
    try:
        line = await bid.verdict
    except ItemMissing:
        return await answer_missing(items, bid)
    return render(line, item_id, exponent, bid.amount, bid.key)


async def answer_missing(items: Items, bid: PendingBid) -> tuple[int, bytes]:
    """The answer to a bid whose item Redis does not have, and had a moment ago, since its currency is known.

    Only closed items leave.
    """
    closed = await items.left(bid.item_id)
    if closed is None:
        await items.gone(bid.item_id)
    return await _answer_closed(items, closed, bid)


def idempotency_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key in the headers of a bid.

    Raises:
        InvalidInput: it is malformed, or there are several.
        BodyTooLarge: they announce such a body.
    """
    key: str | None = None
    for name, value in headers:
        if name == b"idempotency-key":
            if key is not None:
                raise InvalidInput("Idempotency-Key: send it once")
            key = read_key(value)
        elif name == b"content-length" and int(value) > BID_BYTES_MAX:
            raise BodyTooLarge(f"a bid's body may have {BID_BYTES_MAX} bytes")
    return key


def read_key(value: bytes) -> str:
    """The key in an Idempotency-Key header. Raises InvalidInput where it is malformed."""
    key = value.decode("latin-1")
    if not names.is_idempotency_key(key):
        raise InvalidInput("Idempotency-Key: 1 to 255 visible ASCII characters, not all of them dots")
    return key


def _check(sent: BidRequest, permit: Permit) -> None:
    own_id = permit.own_id
    if own_id is not None:
        if sent.user_id != own_id:
            # The request leaves the user out, or names somebody else, which raises.
            sent.user_id = permit.user(None if sent.user_id is msgspec.UNSET else sent.user_id, "user_id") or ""
    elif sent.user_id is msgspec.UNSET:
        raise InvalidInput(f"Object missing required field `user_id`; send for example {_EXAMPLE}")
    elif not names.is_user_id(sent.user_id):
        raise InvalidInput(USER_ID_RULE)
    if sent.amount == NULL:
        raise AmountInvalid("null", "must be a JSON number, for example 12.50", "amount")
    if sent.amount is msgspec.UNSET and (sent.max_amount is msgspec.UNSET or sent.max_amount == NULL):
        raise InvalidInput("amount is missing: send amount, max_amount or both")


def _amounts(sent: BidRequest, exponent: int) -> tuple[int | None, int | None]:
    """Amount and maximum in minor units, in a currency with ``exponent`` decimals."""
    amount = optional_amount(sent.amount, exponent, "amount")
    maximum = optional_amount(sent.max_amount, exponent, "max_amount")
    if amount is not None and maximum is not None and maximum < amount:
        raise InvalidInput("max_amount must be at least amount")
    return amount, maximum


class SentBid(msgspec.Struct, frozen=True):
    """A bid as it was sent, checked as far as that is possible without its item; ``key_is_bid_id``: the idempotency key
    is the bid id."""

    request: BidRequest
    bid_id: str
    key: str | None
    key_is_bid_id: bool

    @classmethod
    def read(cls, body: bytes, header_key: str | None, permit: Permit) -> SentBid:
        """The bid in a body. Raises as :meth:`of`, and InvalidInput where the body is not that of a bid."""
        return cls.of(decode_body(_decoder, body, _EXAMPLE), permit, header_key)

    @classmethod
    def of(cls, sent: BidRequest, permit: Permit, header_key: str | None = None) -> SentBid:
        """The bid as it was decoded; ``permit`` says in whose name it may be.

        Raises:
            InvalidInput: it is malformed.
            Forbidden: it is somebody else's.
        """
        _check(sent, permit)
        return cls(sent, *_identify(sent, header_key))

    def pending(self, item_id: str, exponent: int) -> PendingBid:
        """The bid on an item in whose currency amounts have ``exponent`` decimals.

        Raises:
            InvalidInput: the amounts are none of that currency.
        """
        amount, maximum = _amounts(self.request, exponent)
        user_id = self.request.user_id
        assert user_id is not msgspec.UNSET, "it was checked"
        verdict = PendingVerdict()
        return PendingBid(item_id, user_id, self.bid_id, amount, maximum, self.key, self.key_is_bid_id, verdict)


def _bid_ids() -> Iterator[str]:
    """Bid ids that the client did not make: of 80 random bits, many for one system call.

    They begin with a mark that no client can send. Everybody sees them: ids that follow each other would tell that two
    aliases on two items are one bidder, whose bids came together.
    """
    while True:
        digits = secrets.token_hex(_IDS_AT_ONCE * _ID_DIGITS // 2)
        for at in range(0, len(digits), _ID_DIGITS):
            yield names.MADE_BID_ID_MARK + digits[at : at + _ID_DIGITS]


_made_bid_id: Final = _bid_ids().__next__


def _identify(sent: BidRequest, header_key: str | None) -> tuple[str, str | None, bool]:
    """The bid id, its idempotency key, and whether they are the same."""
    if sent.bid_id is None:
        return _made_bid_id(), header_key, False
    if not names.is_bid_id(sent.bid_id):
        raise InvalidInput(
            "bid_id: ids of this kind are made by the gateway; leave bid_id out, or make your own"
            if names.is_made_bid_id(sent.bid_id)
            else "bid_id: 1 to 64 characters of A-Z a-z 0-9 _ . : @ -, not all of them dots"
        )
    if header_key is not None and header_key != sent.bid_id:
        raise InvalidInput("Idempotency-Key and bid_id differ; send one of them, or the same value in both")
    return sent.bid_id, sent.bid_id, True


async def _answer_closed(items: Items, closed: ItemState, bid: PendingBid) -> tuple[int, bytes]:
    """What a bid is answered on an item that was closed and has left Redis: the same as before it left."""
    line = await items.closed.answer(closed, bid)
    return render(line, bid.item_id, exponent_of(closed.terms.currency), bid.amount, bid.key)


def render(line: bytes, item_id: str, exponent: int, amount: int | None, key: str | None) -> tuple[int, bytes]:
    """Status and body that answer a verdict; the same verdict always gives the same bytes.

    Raises:
        KeyReused: the key was used before with other content.
    """
    # The text of the line becomes text of the answer: to make objects of it first would cost as much again.
    mark, *fields = line.decode().split("|")
    if mark == "K":
        raise KeyReused(key or "")
    if mark == "R":
        return 200, _render_refused(fields, exponent, amount)
    return 201, _render_accepted(mark, fields, item_id, exponent)


_JSON_BOOL: Final = {"1": "true", "0": "false"}


def _render_accepted(mark: str, fields: list[str], item_id: str, exponent: int) -> bytes:
    bid_id, seq, current, yours, leads, minimum, reserve_met, kind, epoch, _ = fields
    if mark == "M":
        message = "Your maximum is raised"
    elif kind == "buy_now":
        message = "Sold to you at the buy-now price"
    elif leads == "1":
        message = "Bid accepted"
    else:
        message = "Bid accepted, but another bidder's maximum is higher"
    price = format_minor(current, exponent)
    # Ids are free of quotes by their patterns, so the text can be put together as it is.
    return (
        f'{{"success":true,"message":"{message}","current_bid":{price},'
        f'"your_bid":{price if yours == current else format_minor(yours, exponent)},"is_highest":{_JSON_BOOL[leads]},'
        f'"event_id":"{item_id}:{epoch}:{seq}","bid_id":"{bid_id}",'
        f'"seq":{seq},"min_next_bid":{format_minor(minimum, exponent)},'
        f'"reserve_met":{_JSON_BOOL[reserve_met]},"kind":"{kind}"}}'
    ).encode()


def _render_refused(fields: list[str], exponent: int, amount: int | None) -> bytes:
    # Behind these may be how much credit is lacking, which is no answer's.
    code, current, leads, least, reserve_met = fields[:5]
    minimum = format_minor(least, exponent)
    message = REFUSALS.get(code) or f"Too low, bid at least {minimum}"
    yours = "null" if amount is None else format_amount(amount, exponent)
    return (
        f'{{"success":false,"code":"{code}","message":"{message}",'
        f'"current_bid":{format_minor(current, exponent)},"your_bid":{yours},"is_highest":false,'
        f'"min_next_bid":{minimum},"you_lead":{_JSON_BOOL[leads]},"reserve_met":{_JSON_BOOL[reserve_met]}}}'
    ).encode()
