"""What a viewer may say on a connection that is for many items, one JSON text each::

    {"op": "subscribe", "items": ["a", "b"], "since": {"a": "1:17"}}      "since" is optional
    {"op": "unsubscribe", "items": ["a"]}
    {"op": "ping"}

What cannot be carried out is answered with a frame ``{"type": "error", "code", "message"}``, and with ``item_id``
where it is about one item; the rest of the same operation is carried out all the same.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from broadcast_service.connection import Connection
from broadcast_service.frames import Frame, Version, error_frame, pong_frame, unsubscribed_frame
from broadcast_service.hub import TooManyItems
from broadcast_service.service import Service
from shared import names

SINCE_HINT: Final = "since must be <epoch>:<seq> of the last frame that was received, for example 1:17"
ITEM_HINT: Final = "an item id is 1 to 64 characters of A-Z a-z 0-9 _ -"
OPERATION_HINT: Final = (
    'say {"op":"subscribe","items":["id"]}, {"op":"unsubscribe","items":["id"]} or {"op":"ping"}, as one JSON text'
)

_SINCE: Final = re.compile(r"([0-9]{1,15}):(-1|[0-9]{1,15})\Z")


class Subscribe(msgspec.Struct, tag_field="op", tag="subscribe", forbid_unknown_fields=True):
    """Follow these items; ``since`` maps some of them to the version that the viewer has already."""

    items: list[str]
    since: dict[str, str] = {}


class Unsubscribe(msgspec.Struct, tag_field="op", tag="unsubscribe", forbid_unknown_fields=True):
    """Follow these items no longer."""

    items: list[str]


class Ping(msgspec.Struct, tag_field="op", tag="ping", forbid_unknown_fields=True):
    """Answered with ``{"type":"pong","server_time"}``."""


_decoder: Final = msgspec.json.Decoder(Subscribe | Unsubscribe | Ping)


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


def operate(service: Service, connection: Connection, text: str | None, now_us: int) -> list[Frame]:
    """Carry out one message (None: it was binary); returns an error frame for each thing that could not be done."""
    if connection.single:
        return [error_frame("ONE_ITEM_ONLY", "this connection is for one item; connect to /ws to name items")]
    try:
        operation = _decoder.decode(text if text is not None else b"")
    except msgspec.DecodeError as error:
        return [error_frame("OPERATION_INVALID", f"{error}; {OPERATION_HINT}")]
    match operation:
        case Subscribe(items, since):
            return _subscribe(service, connection, items, since)
        case Unsubscribe(items):
            gone = [item_id for item_id in items if service.hub.unsubscribe(connection, item_id)]
            connection.send((unsubscribed_frame(gone),))
        case Ping():
            connection.send((pong_frame(now_us),))
    return []


def _subscribe(service: Service, connection: Connection, items: list[str], since: dict[str, str]) -> list[Frame]:
    errors: list[Frame] = []
    for item_id in items:
        if not names.is_item_id(item_id):
            errors.append(error_frame("ITEM_ID_INVALID", ITEM_HINT, item_id=item_id))
            continue
        try:
            version = parse_since(since[item_id]) if item_id in since else None
            service.broadcaster.carry_out(service.hub.subscribe(connection, item_id, version))
        except SinceInvalid as error:
            errors.append(error_frame("SINCE_INVALID", str(error), item_id=item_id))
        except TooManyItems as error:
            errors.append(error_frame("TOO_MANY_ITEMS", str(error), item_id=item_id))
            break
    return errors
