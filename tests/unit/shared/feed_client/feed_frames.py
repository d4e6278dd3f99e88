"""Frames as a service sends them, and a client that takes them."""

from __future__ import annotations

import json
from typing import Any

from shared.feed_client.state import FeedState, Step
from shared.feed_client.updates import ItemUpdate

ITEM = "vase"
TIME = "2026-03-01T12:00:00.000000Z"
TIME_US = 1_772_366_400_000_000


def snapshot(seq: int, *, epoch: int = 1, item_id: str = ITEM, **fields: Any) -> dict[str, Any]:
    state = {
        "type": "snapshot",
        "item_id": item_id,
        "epoch": epoch,
        "seq": seq,
        "current_bid": 10 + seq,
        "name": "A vase",
    }
    return state | {"status": "open", "suggested_bids": [11 + seq], "buy_now_available": True} | fields


def event(seq: int, *, kind: str = "bid", epoch: int = 1, item_id: str = ITEM, **fields: Any) -> dict[str, Any]:
    state = {"type": kind, "event_id": f"{item_id}:{epoch}:{seq}", "item_id": item_id, "epoch": epoch, "seq": seq}
    return state | {"current_bid": 10 + seq, "status": "open", "timestamp": TIME} | fields


def marker(since: str, seq: int, *, epoch: int = 1) -> dict[str, Any]:
    frame = {"type": "resumed", "item_id": ITEM, "recovered": True, "since": since, "replayed": 0}
    return frame | {"epoch": epoch, "seq": seq}


CONNECTED = {"type": "connected", "itemId": None, "clientId": "c", "server_time": TIME, "heartbeat_s": 5}


def client(*items: str, **options: Any) -> FeedState:
    return FeedState(items or (ITEM,), **({"chance": lambda: 1.0} | options))


def take(state: FeedState, *frames: dict[str, Any], now_s: float = 0.0) -> Step:
    """What came of all the frames together."""
    whole = Step()
    for frame in frames:
        step = state.received(json.dumps(frame), now_s)
        whole.updates += step.updates
        whole.messages += step.messages
    return whole


def begun(*frames: dict[str, Any], **options: Any) -> FeedState:
    """A client that is connected and got these frames after the first one."""
    state = client(**options)
    state.connecting()
    state.opened()
    take(state, CONNECTED, *frames)
    return state


def shown(step: Step) -> list[tuple[str, int, bool]]:
    return [(each.kind, each.version[1], each.complete) for each in step.updates if isinstance(each, ItemUpdate)]


def said(messages: list[str]) -> list[dict[str, Any]]:
    return [json.loads(message) for message in messages]
