"""Opens every resource of the gateway, joins the parts, and closes them in reverse; steps are in files beside this."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from api_gateway.bid_socket.sockets import BidSockets
from api_gateway.context import Context
from api_gateway.door.bodies import BodyBytes
from api_gateway.door.foreign_pages import ForeignPages
from api_gateway.engine.memory import MemoryWatch
from api_gateway.identity.access import Access
from api_gateway.identity.revoking import Revoking
from api_gateway.images.images import Images
from api_gateway.images.opening import open_images
from api_gateway.opening.callers import Callers, api_keys_of, bid_sockets_of, callers_of, rates_of, revoking_of
from api_gateway.opening.deciding import Deciding, bids_decided, join_deciding, leases_released
from api_gateway.opening.figures import reported
from api_gateway.opening.items import Changing, Reading, join_changing, open_reading
from api_gateway.opening.servers import GuardedRedis, Servers, open_guarded_redis, open_servers, open_traces
from api_gateway.ops.parts import Parts, parse_parts
from api_gateway.own.watch_lists import WatchLists
from api_gateway.settings import Settings
from api_gateway.tracing.bids import BidTraces
from shared.http.insiders import Insiders
from shared.http.metrics import Histogram
from shared.identity.once import Ration
from shared.pacing.buckets import Rate
from shared.supervision import Work, in_background

BID_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the histogram of bids, in seconds."""


@contextlib.asynccontextmanager
async def open_context(settings: Settings) -> AsyncIterator[Context]:
    """Open the resources and run the background tasks; servers may be away and are waited for in the background."""
    async with contextlib.AsyncExitStack() as stack:
        callers = callers_of(settings)
        traces = await stack.enter_async_context(open_traces(settings, callers.proxies))
        servers = await stack.enter_async_context(open_servers(settings))
        guarded = await stack.enter_async_context(open_guarded_redis(settings, servers))
        deciding = join_deciding(settings, guarded, servers.nats, traces)
        reading = await stack.enter_async_context(open_reading(settings, servers, guarded, deciding))
        # The leases are released after the relay has stopped, which would take them again.
        await stack.enter_async_context(leases_released(deciding.relay))
        parts = _Joined(
            settings,
            callers,
            traces,
            servers,
            guarded,
            deciding,
            reading,
            join_changing(servers, guarded, deciding, reading.items),
            memory=MemoryWatch(guarded.redis),
            revoking=revoking_of(settings, callers, guarded.redis, servers.nats, deciding.relay.notice),
            sockets=bid_sockets_of(settings),
            images=stack.enter_context(open_images(settings)),
        )
        await stack.enter_async_context(in_background(parts.work(), keeps_state=False))
        drained_within_s = settings.redis_timeout_ms / 1000 + 1
        await stack.enter_async_context(bids_decided(deciding.committer, drained_within_s=drained_within_s))
        figures = reported(settings, deciding.committer, deciding.relay, guarded.shards, reading.cache)
        await stack.enter_async_context(figures)
        yield parts.context()


@dataclass(frozen=True, slots=True)
class _Joined:
    """All parts of a gateway."""

    settings: Settings
    callers: Callers
    traces: BidTraces | None
    servers: Servers
    guarded: GuardedRedis
    deciding: Deciding
    reading: Reading
    changing: Changing
    memory: MemoryWatch
    revoking: Revoking | None
    sockets: BidSockets
    images: Images

    def work(self) -> dict[str, Work]:
        """What runs in the background, by name; it is cancelled in reverse."""
        guarded = self.guarded
        work: dict[str, Work] = {
            "relay": self.deciding.relay.run,
            "closer": self.changing.closer.run,
            "rulings": self.changing.spreader.run,
            "shards": partial(guarded.shards.run, guarded.leave),
            "memory": self.memory.run,
            "bid-sockets": self.sockets.run,
            "images": self.images.run,
        }
        if self.revoking is not None:
            work["revocations"] = self.revoking.run
        if self.callers.fetched_keys is not None:
            work["keys"] = self.callers.fetched_keys.run
        if self.deciding.acknowledger is not None:
            work["acknowledger"] = self.deciding.acknowledger.run
        return work

    def context(self) -> Context:
        """What the routes work with."""
        settings, callers, archive = self.settings, self.callers, self.servers.archive
        return Context(
            settings=settings,
            pages=ForeignPages(settings.origins, json_only=settings.auth_mode != "open"),
            insiders=Insiders(settings.operations_networks, callers.proxies),
            access=Access(callers.principals),
            ration=Ration(),
            # A token may have 8 KiB and stays for two minutes. So of one caller there are few, at most 22; those of all
            # callers take at most 100 MB, where every token is as long as one may be.
            sign_in_ration=Ration(of_all=Rate(per_s=90, burst=1_700), of_one=Rate(per_s=0.1, burst=10)),
            rates=rates_of(settings, callers),
            body_bytes=BodyBytes(settings.bodies_bytes_max, each_max=settings.guarded("bodies_bytes_per_address_max")),
            fetched_keys=callers.fetched_keys,
            revoking=self.revoking,
            api_keys=api_keys_of(settings, callers, archive),
            redis=self.guarded.redis,
            nats=self.servers.nats,
            items=self.reading.items,
            images=self.images,
            committer=self.deciding.committer,
            secure=self.deciding.secure,
            relay=self.deciding.relay,
            shards=self.guarded.shards,
            memory=self.memory,
            archive=archive,
            listing=self.reading.listing,
            history=self.reading.history,
            audit=self.reading.audit,
            operations=self.changing.operations,
            rulings=self.changing.rulings,
            closer=self.changing.closer,
            cache=self.reading.cache,
            bid_seconds=Histogram(*BID_BOUNDS_S),
            bid_sockets=self.sockets,
            parts=Parts(parse_parts(settings.ops_parts)),
            hot_items=self.deciding.hot_items,
            watch_lists=WatchLists(archive.asking),
            traces=self.traces,
        )
