"""From a bid to its acknowledgement: the queue and the flush, credit, the relay, and what an answer promises."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from redis.exceptions import RedisError

from api_gateway.engine.accounts.accounts import Accounts
from api_gateway.engine.accounts.scripts import AccountScripts
from api_gateway.engine.bids.acknowledge import Acknowledger, LogAcknowledger
from api_gateway.engine.bids.cluster_replicas import open_replica_acknowledger
from api_gateway.engine.bids.committer import Committer
from api_gateway.engine.bids.queue_bound import QueueBound
from api_gateway.engine.bids.refusals import WantedCore
from api_gateway.engine.relay.relay import Relay
from api_gateway.engine.relay.shard_scripts import ShardScripts
from api_gateway.opening.servers import GuardedRedis
from api_gateway.ops.hot_items import HotItems
from api_gateway.settings import Settings
from api_gateway.tracing.bids import BidTraces
from shared.clients.nats import NatsLink
from shared.supervision import supervised


@dataclass(frozen=True, slots=True)
class Deciding:
    """What decides bids.

    Attributes:
        acknowledger: None where the commit in Redis is all that an acknowledgement promises.
    """

    committer: Committer
    relay: Relay
    acknowledger: Acknowledger | None
    account_scripts: AccountScripts
    accounts: Accounts
    hot_items: HotItems

    @property
    def secure(self) -> Callable[[str], Awaitable[None]] | None:
        """See :class:`api_gateway.context.Context`."""
        return None if self.acknowledger is None else self.acknowledger.secure


def join_deciding(settings: Settings, guarded: GuardedRedis, nats: NatsLink, traces: BidTraces | None) -> Deciding:
    """The parts; none of them works yet."""
    log = LogAcknowledger(guarded.redis, timeout_s=settings.bid_ack_timeout_ms / 1000)
    relay = Relay(
        guarded.redis,
        ShardScripts(guarded.redis),
        nats,
        on_published=log.published,
        on_read=guarded.shards.given_out,
        look=guarded.cursors_made,
        traces=None if traces is None else traces.entries,
    )
    acknowledger = _acknowledger(settings, guarded, log)
    account_scripts = AccountScripts(guarded.redis, guarded.limits)
    accounts = Accounts(account_scripts)
    hot_items = HotItems(asyncio.get_running_loop().time())
    committer = Committer(
        guarded.bid_scripts,
        guarded.redis,
        bound=QueueBound(
            queue_max=settings.bid_queue_max,
            wait_s=settings.bid_wait_max_ms / 1000,
            standing_s=settings.bid_wait_standing_ms / 1000,
            core_clock=WantedCore(),
        ),
        resolve_s=settings.resolve_ms / 1000,
        on_outbox=relay.notice,
        on_given_out=guarded.shards.given_out,
        on_decided=hot_items.note,
        confirm=None if acknowledger is None else acknowledger.confirm,
        secure=None if acknowledger is None else acknowledger.secure,
        find_credit=accounts.find_credit,
        traces=traces,
    )
    return Deciding(committer, relay, acknowledger, account_scripts, accounts, hot_items)


def _acknowledger(settings: Settings, guarded: GuardedRedis, log: LogAcknowledger) -> Acknowledger | None:
    if settings.bid_ack == "log":
        return log
    if settings.bid_ack == "replica":
        return open_replica_acknowledger(
            guarded.redis,
            replicas=settings.bid_ack_replicas,
            timeout_ms=settings.bid_ack_timeout_ms,
            run_of=guarded.guard.run_of,
        )
    return None


@contextlib.asynccontextmanager
async def leases_released(relay: Relay) -> AsyncIterator[None]:
    """Release the leases at the end; the relay has to have stopped by then."""
    try:
        yield
    finally:
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            await relay.release()


@contextlib.asynccontextmanager
async def bids_decided(committer: Committer, *, drained_within_s: float) -> AsyncIterator[None]:
    """Decide bids while inside. At the end decide those that were taken before anything is closed; their events stay in
    the outbox until relayed."""
    deciding = supervised(committer.run, "committer", keeps_state=False, may_end=committer.is_closing)
    flusher = asyncio.create_task(deciding, name="committer")
    try:
        yield
    finally:
        await committer.close()
        await asyncio.wait([flusher], timeout=drained_within_s)
