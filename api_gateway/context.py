"""What the routes work with: opened and closed by ``main.py``, found in the state that every request is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request
from redis.asyncio import Redis

from api_gateway.archive import Archive
from api_gateway.engine.bids.committer import Committer
from api_gateway.engine.closer import Closer
from api_gateway.engine.items import Items
from api_gateway.engine.loss.shards import Shards
from api_gateway.engine.memory import MemoryWatch
from api_gateway.engine.relay.relay import Relay
from api_gateway.history import History
from api_gateway.operations import Operations
from api_gateway.settings import Settings
from shared.clients.nats import NatsLink
from shared.http.metrics import Histogram


@dataclass(frozen=True, slots=True)
class Context:
    """The open resources of one gateway.

    ``secure(shard)`` returns when all that the shard has decided is as safe as an acknowledgement promises; None where
    the commit in Redis is all that it promises. ``bid_seconds``: how long decided bids took.
    """

    settings: Settings
    redis: Redis
    nats: NatsLink
    items: Items
    committer: Committer
    secure: Callable[[str], Awaitable[None]] | None
    relay: Relay
    shards: Shards
    memory: MemoryWatch
    archive: Archive
    history: History
    operations: Operations
    closer: Closer
    bid_seconds: Histogram


def context_of(request: Request) -> Context:
    """The context of the application that serves this request."""
    context = request.state.context
    assert isinstance(context, Context)
    return context
