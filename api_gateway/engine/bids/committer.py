"""Group commit, the half with the network: flushes the batcher's bids and hands out their verdicts.

One task, one flush in flight. When a flush fails:

1. *Nothing was sent* (Redis refuses the connection): every bid of the flush is answered 503; nothing was changed.
2. *The connection broke after sending*: a bid may have been decided or not. It is never sent again from here. As soon
   as Redis answers, what is stored under the bid's key and the item's recent events say whether it was accepted; where
   they do not, the answer is OUTCOME_UNKNOWN and the client asks again under the same key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Final, cast

from msgspec.structs import replace
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api_gateway.engine.bids.batcher import Batcher, PendingBid
from api_gateway.engine.bids.cluster_scripts import AnyBidScripts
from api_gateway.engine.bids.errors import ItemMissing
from api_gateway.engine.bids.pending_verdict import PendingVerdict, tell_all
from api_gateway.engine.bids.queue_bound import QueueBound
from api_gateway.engine.bids.refusals import Refusals
from api_gateway.engine.bids.scripts import Decided
from api_gateway.engine.bids.stored import Asked, read_verdicts
from api_gateway.tracing.bids import BidTraces
from shared import names
from shared.crash_points import crash_point
from shared.domain.errors import BiddingError, OutcomeUnknown, Overloaded, Unavailable
from shared.messages import BidAccepted, DecodeError, decode_any_event
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.keys import recent_key
from shared.redis_layout.verdicts import ACCEPTED, LIMITED, AcceptedBid, credit_lacking

logger = logging.getLogger(__name__)

_RESOLVE_PAUSE_S = 0.1
_CREDIT_TRIES = 4
"""How often credit is sought for one bid: other gateways may take it first."""
_SEEKING_MAX = 5_000
"""Bids that seek credit, or wait for their turn to; past it they are shed."""
_SEEKING_OF_ONE_MAX = 500
"""The most of these that are of one bidder: a batch. They take turns, and may wait for as long as the account is
counted."""

SHED: Final = "too many bids are waiting, or the gateway is shutting down; try again"
"""What a bid is told that is shed."""

FindCredit = Callable[[str, str, str, int], Awaitable[bool]]


class Committer:
    """Decides bids in groups.

    ``place`` answers at most once per bid and never repeats a script call, so a bid is decided at most once; with its
    idempotency key a client makes that exactly once.

    Attributes:
        refusals: of bids that were shed.
    """

    def __init__(
        self,
        scripts: AnyBidScripts,
        redis: Redis,
        *,
        bound: QueueBound,
        resolve_s: float,
        on_outbox: Callable[[str], None],
        on_given_out: Callable[[str, int, int], None] | None = None,
        on_decided: Callable[[str, int, float], None] | None = None,
        confirm: Callable[[str, Lineage, int], Awaitable[None]] | None = None,
        secure: Callable[[str], Awaitable[None]] | None = None,
        find_credit: FindCredit | None = None,
        traces: BidTraces | None = None,
    ) -> None:
        """
        Args:
            bound: of the bids that wait.
            resolve_s: bounds the search after an ambiguous failure.
            on_outbox: told the shard of every outbox entry that is written.
            on_given_out: called for each such entry, with shard, epoch and number.
            on_decided: told the item of each call that was decided, how many bids it had, and the loop's time.
            confirm: awaited with ``(shard, lineage, entry)`` before an accepted bid is answered; it raises
                OutcomeUnknown where the entry is not safe in time.
            secure: awaited with the shard before an accepted bid is answered whose own entry is not known, since the
                answer of its flush got lost; it raises OutcomeUnknown where it is not safe in time.
            find_credit: awaited with ``(item, bidder, currency, minor units)`` where a shard lacks so much of the
                bidder's spending limit; tells whether to ask the shard again, or raises what answers the bid.
            traces: of sampled bids; None where none are.
        """
        self._scripts = scripts
        self._redis = redis
        self._batcher = Batcher(bound, calls_per_item=scripts.calls_per_item)
        self._resolve_s = resolve_s
        self._on_outbox = on_outbox
        self._on_given_out = on_given_out
        self._on_decided = on_decided
        self._confirm = confirm
        self._secure = secure
        self._find_credit = find_credit
        self._traces = traces
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}
        self._seeking = 0
        self._wake = asyncio.Event()
        self._answering: set[asyncio.Task[None]] = set()
        self._closing = False
        self.refusals = Refusals()
        self.decided_total = 0
        self.flushes_total = 0
        self.shed_total = 0

    def __len__(self) -> int:
        """Bids waiting for a flush."""
        return len(self._batcher)

    def sheds(self) -> bool:
        """Whether a bid that comes now is shed. It is counted as one, so this is asked once for each, and before
        anything else is done for it."""
        if self._closing or self._batcher.is_full():
            self.shed_total += 1
            return True
        return False

    def place(self, bid: PendingBid) -> None:
        """Queue a bid; its ``verdict`` is resolved later.

        Raises:
            Overloaded: the queue is at its bound, or the gateway is shutting down.
        """
        if self._closing or not self._batcher.offer(bid):
            self.shed_total += 1
            raise Overloaded(SHED)
        self._wake.set()

    def _place_again(self, bid: PendingBid) -> None:
        """Queue a bid that was taken already, however many came meanwhile. Those that seek credit are bounded.

        Raises:
            Overloaded: the gateway is shutting down, and perhaps nobody flushes any more.
        """
        if self._closing:
            self.shed_total += 1
            raise Overloaded(SHED)
        self._batcher.queue(bid)
        self._wake.set()

    def is_closing(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closing

    async def run(self) -> None:
        """Flush until :meth:`close` is called and the queue is empty. Nothing is left half done where it fails."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while calls := self._batcher.take():
                decided_before = self.decided_total
                try:
                    await self._flush(calls)
                except Exception:  # a bug must not stop the gateway's only flusher
                    logger.exception("bids: flush failed")
                    _fail_all(calls, OutcomeUnknown())
                except asyncio.CancelledError:
                    # The next run does not know these bids, and must not wait for another one before it takes the rest.
                    _fail_all(calls, OutcomeUnknown())
                    self._wake.set()
                    raise
                finally:
                    self._batcher.done(is_decided=self.decided_total > decided_before)
                    # When the next flush is on its way, as with verdicts.
                    asyncio.get_running_loop().call_soon(self.refusals.flushed, sum(map(len, calls)))
            if self._closing:
                return

    async def close(self) -> None:
        """Take no more bids; those that wait are still decided before :meth:`run` returns."""
        self._closing = True
        self.refusals.close()
        self._wake.set()
        if self._answering:
            await asyncio.wait(self._answering, timeout=self._resolve_s)

    async def _flush(self, calls: Sequence[Sequence[PendingBid]]) -> None:
        self.flushes_total += 1
        if self._traces is not None:
            self._traces.taken(calls)
        try:
            results = await self._scripts.place(calls)
        except Unavailable as error:
            _fail_all(calls, error)
            return
        except OutcomeUnknown:
            logger.warning("bids: the answer of Redis got lost, looking up %d items", len(calls))
            self._resolve_later(calls)
            return
        crash_point("bids.decided")
        loop = asyncio.get_running_loop()
        settled: list[PendingVerdict] = []
        # Answer these when the next flush is on its way: Redis decides that one meanwhile.
        loop.call_soon(tell_all, settled)
        now_s = loop.time()
        for call, result in zip(calls, results, strict=True):
            if isinstance(result, Decided):
                self.decided_total += len(call)
                if self._traces is not None:
                    # Before the relay is told of the entry.
                    self._traces.decided(call, result)
                if self._on_decided is not None:
                    self._on_decided(call[0].item_id, len(call), now_s)
                if result.entry:
                    shard = names.shard_of(call[0].item_id)
                    if self._on_given_out is not None:
                        self._on_given_out(shard, result.lineage.epoch, result.entry)
                    self._on_outbox(shard)
                self._answer(call, result, settled)
            elif isinstance(result, OutcomeUnknown):
                self._resolve_later([call])
            else:
                _fail_all([call], result)

    def _answer(self, call: Sequence[PendingBid], result: Decided, settled: list[PendingVerdict]) -> None:
        """Settle the verdicts; accepted bids wait where their acknowledgement promises more than the Lua commit.

        Refused ones never wait: they changed nothing that could get lost.
        """
        accepted: list[tuple[PendingBid, bytes]] = []
        for bid, verdict in zip(call, result.verdicts, strict=True):
            if bid.verdict.done():
                continue
            if self._find_credit is not None and verdict.startswith(LIMITED) and _seeks_credit(bid, verdict):
                self._in_background(self._place_with_credit(bid, verdict, self._find_credit))
                continue
            if self._confirm is None or not verdict.startswith(ACCEPTED):
                bid.verdict.settle(verdict)
                settled.append(bid.verdict)
            else:
                accepted.append((bid, verdict))
        if accepted and self._confirm is not None:
            shard = names.shard_of(call[0].item_id)
            self._in_background(
                self._answer_confirmed(self._confirm(shard, result.lineage, result.last_entry), accepted)
            )

    async def _place_with_credit(self, bid: PendingBid, verdict: bytes, find_credit: FindCredit) -> None:
        """Ask the shard again once it has more of the bidder's limit; the refusal stands where there is no more.

        Bids of one bidder take turns, so that none takes from another what that has just got. Such a bid comes after
        others, of the same bidder too.
        """
        try:
            async with self._turn_of(bid.user_id) as was_behind_others:
                # Those before it may have got credit, and used or outbid it. What it lacked then is not what it lacks
                # now: sought as it was, a batch of one bidder would use up the limit, and be refused by it.
                asks_first = was_behind_others
                for _ in range(_CREDIT_TRIES + asks_first):
                    if not asks_first:
                        lacking = credit_lacking(verdict)
                        if lacking is None or not await find_credit(bid.item_id, bid.user_id, lacking[1], lacking[0]):
                            break
                    asks_first = False
                    again = replace(bid, verdict=PendingVerdict(), has_credit=True)
                    self._place_again(again)
                    verdict = await again.verdict
            _tell(bid, verdict)
        except (BiddingError, ItemMissing) as error:
            _fail_all([[bid]], error)
        except asyncio.CancelledError:
            _fail_all([[bid]], OutcomeUnknown())
            raise
        except Exception:  # a bug must not leave the bid without an answer
            logger.exception("bids: no credit could be sought")
            _fail_all([[bid]], OutcomeUnknown())

    @asynccontextmanager
    async def _turn_of(self, user_id: str) -> AsyncIterator[bool]:
        """One bid of a bidder at a time seeks credit; how many wait is bounded, in all and of one bidder. Tells whether
        others were before it."""
        if self._seeking >= _SEEKING_MAX:
            raise Overloaded("too many bids wait for credit; try again")
        turn, waiting = self._turns.get(user_id, (asyncio.Lock(), 0))
        if waiting >= _SEEKING_OF_ONE_MAX:
            raise Overloaded("too many bids of yours wait for credit; try again")
        self._turns[user_id] = (turn, waiting + 1)
        self._seeking += 1
        try:
            async with turn:
                yield waiting > 0
        finally:
            self._seeking -= 1
            turn, waiting = self._turns.pop(user_id)
            if waiting > 1:
                self._turns[user_id] = (turn, waiting - 1)

    async def _answer_confirmed(self, confirmed: Awaitable[None], accepted: Sequence[tuple[PendingBid, bytes]]) -> None:
        try:
            await confirmed
        except OutcomeUnknown:
            _fail_all([[bid for bid, _ in accepted]], OutcomeUnknown())
            return
        for bid, verdict in accepted:
            _tell(bid, verdict)

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name="answer-bids")
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def _resolve_later(self, calls: Sequence[Sequence[PendingBid]]) -> None:
        self._in_background(self._resolve(calls))

    async def _resolve(self, calls: Sequence[Sequence[PendingBid]]) -> None:
        """Find out what became of bids whose answer got lost, within the time allowed."""
        deadline = asyncio.get_running_loop().time() + self._resolve_s
        for call in calls:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._resolve_item(call)
                    break
                except OutcomeUnknown:
                    break
                except (RedisError, OSError, TimeoutError):
                    if asyncio.get_running_loop().time() >= deadline:
                        break
                    await asyncio.sleep(_RESOLVE_PAUSE_S)
        _fail_all(calls, OutcomeUnknown())

    async def _resolve_item(self, call: Sequence[PendingBid]) -> None:
        """Answer the bids of one item that Redis can tell about; the others stay open."""
        found = await self._look_up(call[0].item_id, [bid for bid in call if not bid.verdict.done()])
        accepted = []
        for bid, verdict in found:
            if verdict.startswith(ACCEPTED):
                accepted.append((bid, verdict))
            else:
                _tell(bid, verdict)
        if not accepted:
            return
        if self._secure is not None:
            await self._secure(names.shard_of(call[0].item_id))
        for bid, verdict in accepted:
            _tell(bid, verdict)

    async def _look_up(self, item_id: str, bids: Sequence[PendingBid]) -> list[tuple[PendingBid, bytes]]:
        found: list[tuple[PendingBid, bytes]] = []
        recent = {bid.bid_id: bid for bid in bids}
        keyed = [(bid, Asked.by(bid)) for bid in bids if bid.key is not None]
        stored = await read_verdicts(self._redis, item_id, [asked for _, asked in keyed]) if keyed else []
        for (bid, _), line in zip(keyed, stored, strict=True):
            if line is not None:
                found.append((bid, line))
                recent.pop(bid.bid_id, None)
        if not recent:
            return found
        latest = await cast("Awaitable[list[bytes]]", self._redis.lrange(recent_key(item_id), 0, -1))
        for raw in latest:
            try:
                event = decode_any_event(raw)
            except DecodeError:
                logger.error("item %s: an event in the recent list cannot be read", item_id)
                continue
            if not isinstance(event, BidAccepted):
                continue
            sent = recent.pop(event.bid_id, None)
            if sent is not None and sent.user_id == event.user_id:
                found.append((sent, AcceptedBid.of_event(event).encode()))
        return found


def _seeks_credit(bid: PendingBid, verdict: bytes) -> bool:
    """Whether the bidder's account may have what the shard lacks for this bid."""
    return not bid.has_credit and credit_lacking(verdict) is not None


def _tell(bid: PendingBid, verdict: bytes) -> None:
    if not bid.verdict.done():
        bid.verdict.set_result(verdict)


def _fail_all(calls: Sequence[Sequence[PendingBid]], error: Exception) -> None:
    for call in calls:
        for bid in call:
            if not bid.verdict.done():
                bid.verdict.set_exception(error)
