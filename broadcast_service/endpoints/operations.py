"""The operations of a viewer, each one JSON text::

    {"op": "subscribe", "items": ["a", "b"], "since": {"a": "1:17"}, "feed": "full"}
    {"op": "unsubscribe", "items": ["a"]}
    {"op": "ping"}
    {"op": "authenticate", "ticket": "..."}      or, of the operator's own site, "token"
    {"op": "standing", "items": ["a"]}

The first two need a connection to many items. ``since`` and ``feed`` are optional; the default of ``feed`` is that of
the URL. A failure is answered with a frame ``{"type": "error", "code", "message"}``, with ``item_id`` where it is about
one item. The rest of the operation is carried out all the same, unless the viewer follows too many items or exceeds
its quota.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from broadcast_service.core.frames import Frame, Version, error_frame, pong_frame, unsubscribed_frame
from broadcast_service.core.hub import TooManyItems
from broadcast_service.core.quota import SINCE_COST
from broadcast_service.endpoints.private import NotAuthenticated
from broadcast_service.service import Service
from broadcast_service.transport.connection import Connection
from shared import feed_tokens, names
from shared.feed_tokens import TokenInvalid
from shared.identity.once import is_secret

FULL: Final = "full"
"""The value of ``feed`` that asks for every event."""

SINCE_HINT: Final = "since must be <epoch>:<seq> of the last frame that was received, for example 1:17"
ITEM_HINT: Final = "an item id is 1 to 64 characters of A-Z a-z 0-9 _ -"
OPERATION_HINT: Final = (
    'say {"op":"subscribe","items":["id"]}, {"op":"unsubscribe","items":["id"]}, {"op":"authenticate","ticket":"..."}, '
    '{"op":"standing","items":["id"]} or {"op":"ping"}, as one JSON text'
)

_SINCE: Final = re.compile(r"([0-9]{1,15}):(-1|[0-9]{1,15})\Z")


class Subscribe(msgspec.Struct, tag_field="op", tag="subscribe", forbid_unknown_fields=True):
    """Follow these items; ``since`` maps some of them to the version that the viewer has already."""

    items: list[str]
    since: dict[str, str] = {}
    feed: Literal["full", "conflated"] | None = None


class Unsubscribe(msgspec.Struct, tag_field="op", tag="unsubscribe", forbid_unknown_fields=True):
    """Stop following these items."""

    items: list[str]


class Ping(msgspec.Struct, tag_field="op", tag="ping", forbid_unknown_fields=True):
    """Answered with ``{"type":"pong","server_time"}``."""


class Authenticate(msgspec.Struct, tag_field="op", tag="authenticate", forbid_unknown_fields=True):
    """Authenticate the bidder, by one of the two; answered with ``authenticated`` and a ``standing`` for each followed
    item."""

    token: str | UnsetType = UNSET
    ticket: str | UnsetType = UNSET


class AskStanding(msgspec.Struct, tag_field="op", tag="standing", forbid_unknown_fields=True):
    """Read the standing on these items again, and tell it."""

    items: list[str]


_decoder: Final = msgspec.json.Decoder(Subscribe | Unsubscribe | Ping | Authenticate | AskStanding)


class SinceInvalid(ValueError):
    """Not ``<epoch>:<seq>``."""


def parse_since(text: str) -> Version:
    """``"1:17"`` gives ``(1, 17)``; ``"0:-1"`` is the version of an item that did not exist.

    Raises:
        SinceInvalid: anything else.
    """
    match = _SINCE.match(text)
    if match is None:
        raise SinceInvalid(SINCE_HINT)
    return int(match[1]), int(match[2])


Spend = Callable[[int], bool]
"""Counts so many operations; False where they are too many. See :class:`~broadcast_service.core.quota.Quota`."""


class Handled(NamedTuple):
    """The error frames of one message: one per failure, and ``too_many`` where the rest exceeded the quota."""

    failed: list[Frame]
    too_many: Frame | None = None


DONE: Final = Handled([])


def too_many_operations(per_s: float, *, item_id: str | None = None) -> Frame:
    """The error frame for a viewer that asks for too much.

    Args:
        item_id: the first item of the operation for which nothing was done.
    """
    text = f"more was asked for than {per_s:g} operations a second; wait some seconds before you say more"
    return error_frame("TOO_MANY_OPERATIONS", text, item_id=item_id)


def operate(
    service: Service, connection: Connection, text: str | None, now_us: int, spend: Spend, *, full: bool
) -> Handled:
    """Carry out one message (None: it was binary).

    Args:
        full: the default of ``feed``: whether the connection asked for every event.
    """
    try:
        operation = _decoder.decode(text if text is not None else b"")
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        what = "it nests too deeply" if isinstance(error, RecursionError) else error
        return _wrong(error_frame("OPERATION_INVALID", f"{what}; {OPERATION_HINT}"))
    match operation:
        case Subscribe() | Unsubscribe() if connection.single:
            return _wrong(error_frame("ONE_ITEM_ONLY", "this connection is for one item; connect to /ws to name items"))
        case Subscribe():
            return _subscribe(service, connection, operation, spend, full=full)
        case Unsubscribe(items):
            gone = [item_id for item_id in items if service.unfollow(connection, item_id)]
            connection.send((unsubscribed_frame(gone),))
        case Ping():
            connection.send((pong_frame(now_us),))
        case Authenticate():
            return _authenticate(service, connection, operation, spend)
        case AskStanding(items):
            return _ask_standing(service, connection, items, spend)
    return DONE


def _wrong(error: Frame) -> Handled:
    return Handled([error])


def _subscribe(service: Service, connection: Connection, operation: Subscribe, spend: Spend, *, full: bool) -> Handled:
    full = full if operation.feed is None else operation.feed == FULL
    since = operation.since
    errors: list[Frame] = []
    for item_id in operation.items:
        if not spend(SINCE_COST if item_id in since else 1):
            return Handled(errors, too_many_operations(service.operations_rate.per_s, item_id=item_id))
        if not names.is_item_id(item_id):
            errors.append(error_frame("ITEM_ID_INVALID", ITEM_HINT, item_id=item_id))
            continue
        try:
            version = parse_since(since[item_id]) if item_id in since else None
            service.follow(connection, item_id, version, full=full)
        except SinceInvalid as error:
            errors.append(error_frame("SINCE_INVALID", str(error), item_id=item_id))
        except TooManyItems as error:
            errors.append(error_frame("TOO_MANY_ITEMS", str(error), item_id=item_id))
            break
    return Handled(errors)


def _authenticate(service: Service, connection: Connection, operation: Authenticate, spend: Spend) -> Handled:
    token, ticket = operation.token, operation.ticket
    if (token is UNSET) == (ticket is UNSET):
        return _wrong(error_frame("OPERATION_INVALID", f"authenticate by a ticket or by a token; {OPERATION_HINT}"))
    # The standing on each item is read again.
    if not spend(len(service.hub.items_of(connection))):
        return Handled([], too_many_operations(service.operations_rate.per_s))
    if ticket is not UNSET:
        if not is_secret(ticket):
            return _wrong(error_frame("TICKET_INVALID", "this is no ticket; POST /api/v1/feed-ticket gives one"))
        service.tickets.say(connection, ticket)
        return DONE
    assert token is not UNSET
    try:
        identity = feed_tokens.check(service.settings.feed_token_secrets, token)
    except TokenInvalid as error:
        return _wrong(error_frame("TOKEN_INVALID", str(error)))
    service.private.authenticate(connection, identity)
    return DONE


def _ask_standing(service: Service, connection: Connection, items: list[str], spend: Spend) -> Handled:
    errors: list[Frame] = []
    for item_id in items:
        if not spend(1):
            return Handled(errors, too_many_operations(service.operations_rate.per_s, item_id=item_id))
        try:
            if not service.private.ask(connection, item_id):
                errors.append(error_frame("NOT_FOLLOWED", "subscribe to the item first", item_id=item_id))
        except NotAuthenticated:
            return _wrong(error_frame("NOT_AUTHENTICATED", 'say {"op":"authenticate","ticket":"..."} first'))
    return Handled(errors)
