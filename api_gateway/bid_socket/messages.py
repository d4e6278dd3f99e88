"""What is said on a WebSocket of bids: a bid with an id, and its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from websockets.frames import Frame, Opcode

from api_gateway.contract.problems import problem_of
from api_gateway.contract.schemas import BatchedBid, decode_body
from api_gateway.door.rates import Near, RateLimited
from shared.domain.errors import BiddingError

ID_CHARACTERS_MAX: Final = 64
ID_NUMBER_MAX: Final = 2**53 - 1
_RETRY_AFTER: Final = "retry-after"
_EXAMPLE: Final = '{"op": "bid", "id": 1, "item_id": "demo-1", "user_id": "ada", "amount": 12.50}'

Id = Annotated[str, Meta(min_length=1, max_length=ID_CHARACTERS_MAX)] | Annotated[int, Meta(ge=0, le=ID_NUMBER_MAX)]
"""How a client names a message of its own, to match the answer."""


class BidOp(BatchedBid, gc=False, forbid_unknown_fields=True, kw_only=True, tag_field="op", tag="bid"):
    """A bid, as ``POST /api/v1/items/{id}/bid`` takes it, with its item and the client's id of this message."""

    id: Id


class _OnlyId(msgspec.Struct):
    id: Id


_decoder: Final = msgspec.json.Decoder(BidOp)
_id_decoder: Final = msgspec.json.Decoder(_OnlyId)


@dataclass(frozen=True, slots=True)
class CloseCode:
    """Why the gateway closes a WebSocket. ``reason``: at most 123 bytes, as a close frame allows."""

    code: int
    reason: str


GOING_AWAY: Final = CloseCode(1001, "the gateway stops; every bid that it took is answered")
INTERNAL_ERROR: Final = CloseCode(1011, "something went wrong here; ask for bids without an answer by their keys")
TOKEN_EXPIRED: Final = CloseCode(4401, "the token is no longer good; connect again with a new one")
IDLE: Final = CloseCode(4408, "nothing was said for a long time; connect again when there is a bid")
TOO_MANY_ERRORS: Final = CloseCode(4429, "too many messages that are no bids, or more than the rate allows")
SLOW_READER: Final = CloseCode(4508, "answers were not read in time; ask for bids without one by their keys")
CLOSE_CODES: Final = (GOING_AWAY, INTERNAL_ERROR, TOKEN_EXPIRED, IDLE, TOO_MANY_ERRORS, SLOW_READER)


def read_bid(text: str) -> BidOp:
    """The bid in a message.

    Raises:
        InvalidInput: it is none, with what to send.
    """
    return decode_body(_decoder, text, _EXAMPLE)


def id_in(text: str) -> Id | None:
    """The id of a message that is no bid; None where it has none."""
    try:
        return _id_decoder.decode(text).id
    except (msgspec.DecodeError, RecursionError):
        return None


def answer(message_id: Id | None, status: int, body: bytes, near: Near | None = None) -> bytes:
    """The frame of an answer, ready to be written. ``body``: JSON. ``near``: how little may still be asked for, where
    it is little."""
    shown = b"%d" % message_id if type(message_id) is int else msgspec.json.encode(message_id)
    if near is None:
        return _frame(b'{"type":"answer","id":%b,"status":%d,"answer":%b}' % (shown, status, body))
    return _frame(b'{"type":"answer","id":%b,"status":%d,%b"answer":%b}' % (shown, status, _told(near), body))


def refusal(message_id: Id | None, error: BiddingError, near: Near | None = None) -> bytes:
    """The same for a bid that could not be decided. ``retry_after``: seconds, where HTTP has a header of that name."""
    status, body, headers = problem_of(error)
    if isinstance(error, RateLimited):
        near = error.near
    if _RETRY_AFTER not in headers:
        return answer(message_id, status, body, near)
    shown = msgspec.json.encode(message_id)
    told = b'{"type":"answer","id":%b,"status":%d,"retry_after":%b,%b"answer":%b}'
    limit = b"" if near is None else _told(near)
    return _frame(told % (shown, status, headers[_RETRY_AFTER].encode(), limit, body))


def _told(near: Near) -> bytes:
    return b'"rate_limit":{"policy":"%b","remaining":%d,"reset_s":%d},' % (
        near.policy.encode(),
        near.left,
        near.reset_s,
    )


def _frame(text: bytes) -> bytes:
    return Frame(Opcode.TEXT, text).serialize(mask=False)
