"""What the routes work with: opened and closed by ``opening``, found in the state that every request is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from fastapi import Request
from redis.asyncio import Redis

from api_gateway.bid_socket.sockets import BidSockets
from api_gateway.changes.operations import Operations
from api_gateway.changes.rulings import BidderRulings
from api_gateway.door.bodies import BodyBytes
from api_gateway.door.foreign_pages import ForeignPages
from api_gateway.door.rates import Rates
from api_gateway.engine.bids.committer import Committer
from api_gateway.engine.closer import Closer
from api_gateway.engine.items import Items
from api_gateway.engine.loss.shards import Shards
from api_gateway.engine.memory import MemoryWatch
from api_gateway.engine.relay.relay import Relay
from api_gateway.identity.access import Access, Permit
from api_gateway.identity.api_keys import ApiKeys
from api_gateway.identity.revoking import Revoking
from api_gateway.images.images import Images
from api_gateway.ops.hot_items import HotItems
from api_gateway.ops.parts import Parts
from api_gateway.own.watch_lists import WatchLists
from api_gateway.reads.archive import Archive
from api_gateway.reads.audit import Audit
from api_gateway.reads.history import History
from api_gateway.reads.listing import Listing
from api_gateway.settings import Settings
from api_gateway.tracing.bids import BidTraces
from shared.clients.nats import NatsLink
from shared.http.insiders import Insiders
from shared.http.metrics import Histogram
from shared.identity.keys import FetchedKeys
from shared.identity.once import Ration
from shared.read_cache.cache import ReadCache


@dataclass(frozen=True, slots=True)
class Context:
    """The open resources of one gateway.

    Attributes:
        pages: from where a request may come.
        access: who may call what.
        rates, body_bytes: how much a caller may ask for, and send.
        ration, sign_in_ration: how many feed tickets and links are given out.
        insiders: who is told how the gateway is doing.
        fetched_keys: those of tokens, where they are fetched.
        revoking: revokes tokens; None where there are none.
        api_keys: gives tokens for them; None where there are none.
        secure: ``secure(shard)`` returns when all that the shard has decided is as safe as an acknowledgement promises;
            None where the commit in Redis is all that it promises.
        cache: of closed items; None where they are read without one.
        images: of lots.
        bid_seconds: how long decided bids took.
        parts: how the other services are.
        hot_items: where bids come fast.
        watch_lists: of those who sign in.
        traces: of sampled bids; None where none are.
    """

    settings: Settings
    pages: ForeignPages
    access: Access
    ration: Ration
    sign_in_ration: Ration
    insiders: Insiders
    rates: Rates
    body_bytes: BodyBytes
    fetched_keys: FetchedKeys | None
    revoking: Revoking | None
    api_keys: ApiKeys | None
    redis: Redis
    nats: NatsLink
    items: Items
    images: Images
    committer: Committer
    secure: Callable[[str], Awaitable[None]] | None
    relay: Relay
    shards: Shards
    memory: MemoryWatch
    archive: Archive
    listing: Listing
    history: History
    audit: Audit
    operations: Operations
    rulings: BidderRulings
    closer: Closer
    cache: ReadCache | None
    bid_seconds: Histogram
    bid_sockets: BidSockets
    parts: Parts
    hot_items: HotItems
    watch_lists: WatchLists
    traces: BidTraces | None = None

    def permit_named(self, call: str, headers: Mapping[bytes, bytes], peer: str | None) -> Permit:
        """The same for headers of which none is there twice."""
        account = self.rates.enter(peer, headers.items())
        return self.access.permit_by(call, headers.get(b"authorization"), account)

    def permit(self, call: str, headers: Iterable[tuple[bytes, bytes]], peer: str | None) -> Permit:
        """What the sender of a request may do, once its address and its caller are charged for it.

        Args:
            peer: the address of the other end of the connection.

        Raises:
            RateLimited: they have asked for too much.
            BiddingError: see :meth:`Access.permit`.
        """
        return self.access.permit(call, headers, self.rates.enter(peer, headers))


def context_of(request: Request) -> Context:
    """The context of the application that serves this request."""
    context = request.state.context
    assert isinstance(context, Context)
    return context
