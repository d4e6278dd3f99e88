"""What is told of items, and what sellers and operators do with them and with bidders."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from api_gateway.changes.operations import Operations
from api_gateway.changes.rulings import BidderRulings
from api_gateway.engine.accounts.turns import VoidTurns
from api_gateway.engine.bids.covered_voids import CoveredVoids
from api_gateway.engine.bids.voids import Voids
from api_gateway.engine.closed.closed_items import ClosedItems
from api_gateway.engine.closed.reads import open_reads
from api_gateway.engine.closed.returns import Returns
from api_gateway.engine.closer import Closer
from api_gateway.engine.items import Items
from api_gateway.engine.loss.lost_items import LostItems
from api_gateway.engine.rulings.scripts import RulingScripts
from api_gateway.engine.rulings.spreader import Spreader
from api_gateway.opening.deciding import Deciding
from api_gateway.opening.servers import GuardedRedis, Servers
from api_gateway.reads.audit import Audit
from api_gateway.reads.catalogue import Catalogue
from api_gateway.reads.history import History
from api_gateway.reads.listing import Listing
from api_gateway.settings import Settings
from shared.archive_reads.origin import ArchiveOrigin
from shared.read_cache.cache import ReadCache
from shared.read_cache.settings import ReadCacheSettings


@dataclass(frozen=True, slots=True)
class Reading:
    """What is told of items.

    Attributes:
        cache: of closed items; None where they are read without one.
    """

    items: Items
    listing: Listing
    history: History
    audit: Audit
    cache: ReadCache | None


@asynccontextmanager
async def open_reading(
    settings: Settings, servers: Servers, guarded: GuardedRedis, deciding: Deciding
) -> AsyncIterator[Reading]:
    """Open items out of Redis, closed ones out of the archive or the read cache."""
    archive, redis = servers.archive, guarded.redis
    origin = ArchiveOrigin(archive.asking)
    async with open_reads(ReadCacheSettings(), origin, redis, servers.nats) as reads:
        items = Items(
            redis,
            guarded.item_scripts,
            guarded.witnesses,
            LostItems(redis),
            ClosedItems(redis, reads.archive, archive.asking, on_rebuilt=reads.drop),
            open_catalogue=settings.open_catalogue,
            on_outbox=deciding.relay.notice,
        )
        listing = Listing(Catalogue(reads.archive, archive.asking), items)
        yield Reading(items, listing, History(redis, archive), Audit(redis, archive), reads.cache)


@dataclass(frozen=True, slots=True)
class Changing:
    """What changes items beside bids, and who may bid."""

    closer: Closer
    operations: Operations
    rulings: BidderRulings
    spreader: Spreader


def join_changing(servers: Servers, guarded: GuardedRedis, deciding: Deciding, items: Items) -> Changing:
    """The parts; none of them works yet."""
    archive, redis, relay, accounts = servers.archive, guarded.redis, deciding.relay, deciding.accounts
    closer = Closer(guarded.item_scripts, owned_shards=relay.owned_shards, on_outbox=relay.notice)
    voids = Voids(redis, guarded.item_scripts, archive)
    operations = Operations(
        guarded.item_scripts,
        items,
        CoveredVoids(voids, accounts.find_credit_at_once, VoidTurns(redis)),
        archive,
        Returns(redis, archive.asking),
        on_outbox=relay.notice,
    )
    ruling_scripts = RulingScripts(redis, guarded.limits)
    spreader = Spreader(ruling_scripts, owned_shards=relay.owned_shards, look_after=accounts.look_after)
    rulings = BidderRulings(
        ruling_scripts,
        spreader,
        deciding.account_scripts,
        accounts,
        items,
        archive.asking,
        on_outbox=relay.notice,
    )
    return Changing(closer, operations, rulings, spreader)
