"""The relay: publishes every outbox entry to JetStream, in order per shard, and moves the `published` cursor.

:mod:`api_gateway.engine.relay.leases` says of which shards, and until when.

A process may pause for any time between any two lines. So nothing that was read is published after the lease ran out by
this process' own clock, nor under an epoch that was not read together with it; and a cursor is only moved for the
lineage that was published.

A PubAck that says ``duplicate`` is only believed when the message that JetStream has is ours.

A turn reads what the owned shards have, publishes all of it with many messages in flight, and waits for the PubAcks
with a time limit. The next turn moves each cursor to the last entry whose PubAck and all before it arrived, and reads
on, in one round trip. What failed is read again after a growing pause: of the shard, where only that one failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import APIError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api_gateway.engine.relay.in_flight import ForeignMessage, InFlight, Settled, StreamWentBack, verify
from api_gateway.engine.relay.leases import Leases, Owned
from api_gateway.engine.relay.options import RelayHealth, RelayOptions
from api_gateway.engine.relay.publisher import Publisher
from api_gateway.engine.relay.resting import RestingShards
from api_gateway.engine.relay.shard_scripts import Advance, ShardScripts, Turn
from api_gateway.tracing.entries import EntryTraces
from shared import names
from shared.clients.nats import NatsLink, StreamLimits, ensure_stream
from shared.crash_points import crash_point
from shared.messages import frame_batch
from shared.pacing.backoff import Backoff
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.outbox import Entry
from shared.supervision import heed_cancellation, loudly

logger = logging.getLogger(__name__)

_SERVERS_FAIL = (RedisError, NatsError, APIError, OSError, TimeoutError)
_LOOK_FOR_LOSS_S = 0.2
_CHECK_STREAM_EVERY_S = 2.0
_BACKOFF_FIRST_S = 0.1


class Relay:
    """At-least-once, in order per shard: an entry's PubAck is known before the cursor passes it."""

    def __init__(
        self,
        redis: Redis,
        scripts: ShardScripts,
        nats: NatsLink,
        *,
        options: RelayOptions | None = None,
        stream_limits: StreamLimits | None = None,
        on_published: Callable[[str, Lineage, int], None] | None = None,
        on_read: Callable[[str, int, int], None] | None = None,
        look: asyncio.Event | None = None,
        traces: EntryTraces | None = None,
    ) -> None:
        """
        Args:
            on_published: told of every move of a cursor, with shard, lineage and entry.
            on_read: told of every entry before it is sent, with shard, epoch and number.
            look: set when shards got their cursors, so that work on them begins now, not with the next renewal.
            traces: knows which entries have sampled bids; None where none are sampled.
        """
        self._on_published = on_published
        self._on_read = on_read
        self._traces = traces
        self._scripts = scripts
        self._nats = nats
        self._options = options or RelayOptions()
        self._stream_limits = stream_limits or StreamLimits()
        self._client: Client | None = None
        self._jetstream: JetStreamContext | None = None
        self._publisher: Publisher | None = None
        self._dirty: set[str] = set()
        self._resting = RestingShards(first_s=_BACKOFF_FIRST_S, most_s=self._options.backoff_max_s)
        self._wake = asyncio.Event()
        self._look_due_s = 0.0
        self._stream_id = ""
        self._stream_checked_at_s = 0.0
        self._highest_seq = 0
        self._lost_from_seq: int | None = None
        self._look = look or asyncio.Event()
        self.health = RelayHealth()
        self._leases = Leases(
            redis,
            scripts,
            self._options,
            self.health,
            look=self._look,
            on_adopted=self._has_work,
            on_failure=self._failed,
        )
        # The same dictionary.
        self._owned = self._leases.owned

    def notice(self, shard: str) -> None:
        """The shard's outbox grew: relay it now, or tell its owner."""
        if shard in self._owned:
            self._has_work(shard)
        elif (client := self._nats.client) is not None:
            traces = b"" if self._traces is None else self._traces.hint(shard)
            task = asyncio.ensure_future(client.publish(f"{names.NUDGE_PREFIX}.{shard}", traces))
            task.add_done_callback(_ignore_lost_hint)

    def owned_shards(self) -> Collection[str]:
        """The shards whose lease this gateway holds right now."""
        return self._owned.keys()

    async def run(self) -> None:
        """Relay until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(loudly(self._leases.run), name="relay-leases")
            group.create_task(loudly(self._pump), name="relay-pump")

    async def release(self) -> None:
        """Give the leases back, so that another gateway need not wait for them to run out."""
        await self._leases.release()

    async def _on_nudge(self, message: Any) -> None:
        shard = message.subject.rpartition(".")[2]
        if shard in self._owned:
            if self._traces is not None and message.data:
                self._traces.heard(shard, message.data)
            self._has_work(shard)

    def _has_work(self, shard: str) -> None:
        self._dirty.add(shard)
        self._wake.set()

    async def _connected(self) -> tuple[JetStreamContext, Publisher]:
        """JetStream over the present client, which hears the other gateways' hints.

        Raises:
            OSError: NATS is not reachable now.
        """
        client = await self._nats.connected()
        if client is not self._client or self._jetstream is None or self._publisher is None:
            await client.subscribe(f"{names.NUDGE_PREFIX}.*", cb=self._on_nudge)
            self._publisher = await Publisher.open(client)
            self._jetstream = client.jetstream()
            self._client = client
        return self._jetstream, self._publisher

    async def _pump(self) -> None:
        """Work while there is work; otherwise sleep until told or until the next look."""
        backoff = Backoff(first_s=_BACKOFF_FIRST_S, most_s=self._options.backoff_max_s)
        while True:
            with contextlib.suppress(TimeoutError):
                # Not for the whole interval: hints of some shards would put off the look at the others.
                async with asyncio.timeout_at(self._look_due_s):
                    await self._wake.wait()
            self._wake.clear()
            try:
                self._leases.expect_answer()
                jetstream, publisher = await self._connected()
                await self._check_stream(jetstream)
                await self._cycle(jetstream, publisher)
                backoff.succeeded()
                self.health.connected = True
                self.health.last_error = self._resting.text
            except (*_SERVERS_FAIL, ForeignMessage, StreamWentBack) as error:
                heed_cancellation()
                self._failed("publish", error)
                await self._back_off(backoff)
            except Exception as error:
                heed_cancellation()
                # A bug must not end the gateway's only relay: log it, and read everything again.
                logger.exception("relay: unexpected failure")
                self._failed("publish", error)
                await self._back_off(backoff)

    async def _back_off(self, backoff: Backoff) -> None:
        self._dirty.update(self._owned)
        self._wake.set()
        await asyncio.sleep(backoff.failed())

    def _failed(self, what: str, error: BaseException) -> None:
        self.health.failures_total += 1
        text = f"{what}: {type(error).__name__}: {error}"
        if self.health.last_error != text:
            logger.warning("relay: %s", text)
        self.health.last_error = text
        self.health.connected = self._nats.is_connected

    async def _cycle(self, jetstream: JetStreamContext, publisher: Publisher) -> None:
        """Take turns while the noticed shards have work, until it is time to look at the stream again. A turn moves the
        cursors of what the one before it has published, reads what comes next, and publishes that.

        A shard that fails alone holds up no other one: it rests, and is tried again by itself.
        """
        advances: dict[str, Advance] = {}
        self._resting.keep(self._owned)
        await self._look_for_news()
        while shards := self._noticed_shards():
            in_flight: list[InFlight] = []
            try:
                await self._read_and_publish(publisher, shards, advances, in_flight)
                await self._acknowledged(publisher)
                await verify(jetstream, in_flight, timeout_s=self._options.ack_timeout_s)
                # Before it is settled how far the cursors may move: the lease may end while this waits for Redis.
                await self._look_for_news()
            except BaseException:
                publisher.give_up()
                await self._conclude(self._settled(in_flight, shards))
                raise
            publisher.give_up()
            settled = self._settled(in_flight, shards)
            if settled.error is not None:
                await self._conclude(settled)
                raise settled.error
            # The next turn moves these cursors, in the same round trip with which it reads on.
            advances = settled.reached
            # What was acknowledged belongs to the stream that was seen last: the cursors move before the next look. And
            # after a failure it is known that all is well again only once the cursors have moved.
            is_news = self.health.last_error != self._resting.text
            if not self._is_stream_checked() or not self._leases.are_certain() or is_news:
                break
        await self._move_and_read(advances, {}, most=0)

    async def _look_for_news(self) -> None:
        """From time to time ask all shards, however busy the relay is: a hint may be lost."""
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._look_due_s:
            self._look_due_s = now_s + self._options.poll_ms / 1_000
            known = {shard: (owned.lineage, owned.published) for shard, owned in self._owned.items()}
            news = await self._scripts.news(known)
            self._dirty |= news

    def _noticed_shards(self) -> dict[str, Owned]:
        """The shards that may have entries, and nobody else relays; not those that must be checked first, or rest."""
        noticed = {shard: owned for shard in self._dirty if (owned := self._owned.get(shard)) is not None}
        self._dirty = {
            shard for shard, owned in noticed.items() if not owned.is_checked or self._resting.is_resting(shard)
        }
        return {shard: owned for shard, owned in noticed.items() if shard not in self._dirty}

    async def _read_and_publish(
        self,
        publisher: Publisher,
        shards: Mapping[str, Owned],
        advances: Mapping[str, Advance],
        in_flight: list[InFlight],
    ) -> None:
        """Move cursors, and publish what comes next in these shards; ``in_flight`` gets what was sent. Nothing is
        published of a shard that fails."""
        most = min(self._options.entries_per_shard, max(1, self._options.entries_per_turn // len(shards)))
        after = {shard: owned.published for shard, owned in shards.items()}
        # Their cursors move in the same step, before their entries are read.
        after |= {shard: advance.entry for shard, advance in advances.items() if shard in shards}
        turns = await self._move_and_read(advances, after, most=most)
        if not self._leases.are_certain():
            self._dirty.update(shards)
            self._look.set()
            return
        for shard, owned in shards.items():
            if (turn := turns.get(shard)) is None:
                continue
            _, lineage, entries = turn
            if lineage != owned.lineage:
                # 1. The relay pauses. 2. The shard is rebuilt, or Redis fails over. 3. The relay reads on, at its
                # old number, in another outbox. It would publish what it read there under the old lineage.
                self._leases.forget(shard, owned)
                continue
            if len(entries) == most:
                self._has_work(shard)
            for entry in entries:
                if self._owned.get(shard) is not owned or not self._leases.are_certain():
                    # 1. The relay pauses past its lease. 2. Another one publishes these entries, and the shard is
                    # rebuilt in another epoch. 3. This relay wakes up with entries that it read before all that.
                    self._dirty.add(shard)
                    break
                in_flight.append(await self._publish(publisher, shard, owned.lineage, after[shard], entry))

    async def _acknowledged(self, publisher: Publisher) -> None:
        """Wait for the PubAcks, until the time is up or the connection is lost; those still missing then will not
        come."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._options.ack_timeout_s
        while not await publisher.answered(timeout_s=min(_LOOK_FOR_LOSS_S, max(0.0, deadline_s - loop.time()))):
            if not self._nats.is_connected or loop.time() >= deadline_s:
                return

    async def _publish(self, publisher: Publisher, shard: str, lineage: Lineage, after: int, entry: Entry) -> InFlight:
        if self._on_read is not None:
            # Another gateway may have decided this entry, and died. If Redis fails over to a replica that lacks it,
            # before it is in the stream, only this process knows that its number was given out.
            self._on_read(shard, lineage.epoch, entry.n)
        payload = frame_batch(shard, lineage.epoch, entry.n, entry.item_id, *entry[2:])
        one = InFlight(shard, lineage, after, entry.n, names.subject_of(entry.item_id), payload)
        if self._traces is not None:
            one.traced = self._traces.publish((shard, lineage.epoch, entry.n), entry.item_id)
        self._leases.expect_answer()
        await publisher.publish(one, names.message_id(shard, lineage.epoch, entry.n, payload))
        return one

    def _settled(self, in_flight: Sequence[InFlight], shards: Mapping[str, Owned]) -> Settled:
        """How far each shard's cursor may move: past its entries with a PubAck, up to the first without one. Not at all
        where the lease did not last from the read until now; then its entries are read again.

        1. Entries are acknowledged, and the process is paused past its lease. 2. The stream loses its tail. 3. Another
        relay notices it, moves the cursor back, and dies. 4. This one has the lease again, and the cursor may be at the
        entry after which it had read, in the same stream.
        """
        failures = [published.failure for published in in_flight]
        error: BaseException | None = self._look_for_lost_tail(in_flight)
        if error is not None:
            return Settled({}, [], error)
        reached: dict[str, Advance] = {}
        stuck = {shard for shard, owned in shards.items() if self._owned.get(shard) is not owned}
        if not self._leases.are_certain():
            stuck.update(shards)
        foreign: list[InFlight] = []
        for published, failure in zip(in_flight, failures, strict=True):
            if published.is_foreign and published.shard not in stuck:
                foreign.append(published)
            if failure is not None:
                error = error or failure
                stuck.add(published.shard)
            elif published.shard not in stuck:
                assert published.ack is not None, "else it would have failed"
                reached[published.shard] = Advance(
                    published.shard, published.lineage, published.entry, published.ack.seq, published.after
                )
        if None in failures:
            self._leases.was_answered()
        return Settled(reached, foreign, error)

    async def _conclude(self, settled: Settled) -> None:
        """After a failure: move the cursors at once, and close the shards whose entries cannot be published."""
        await self._move_and_read(settled.reached, {}, most=0)
        for published in settled.foreign:
            await self._stop(published)

    def _look_for_lost_tail(self, in_flight: Sequence[InFlight]) -> StreamWentBack | None:
        """Whether the stream has given a number twice. It numbers messages in the order in which they are sent, so then
        it has lost its tail since the last :meth:`_check_stream`, which must come first:

        1. An entry is stored as message 100, and the stream loses its messages from 91 on.
        2. The next entry of the shard becomes message 91. If the cursor moved, it would have 91 in place of 100, and
           nothing would show that the first entry is gone.

        Message 100 may be another gateway's, from which this one took the shard: all that the look at the stream showed
        were given.
        """
        acks = (published.ack for published in in_flight)
        for seq in (ack.seq for ack in acks if ack is not None and not ack.duplicate):
            if seq <= self._highest_seq:
                self._lost_from_seq = seq
                for owned in self._owned.values():
                    owned.is_checked = False
                return StreamWentBack(f"JetStream has given number {seq} twice; it was at {self._highest_seq}")
            self._highest_seq = seq
        return None

    async def _move_and_read(
        self, advances: Mapping[str, Advance], after: Mapping[str, int], *, most: int
    ) -> dict[str, Turn]:
        """Move cursors, and read at most ``most`` entries of each shard after a number. What could not be moved is
        forgotten, so that it is taken up anew. Returns the turns of the shards that did not fail; the others rest."""
        if not advances and not after:
            return {}
        if advances:
            crash_point("relay.published")
        answers = await self._scripts.turn(
            advances, after, token=self._leases.token, stream_id=self._stream_id, count=most
        )
        if advances:
            crash_point("relay.advanced")
        errors = {shard: answer for shard, answer in answers.items() if isinstance(answer, Exception)}
        turns = {shard: answer for shard, answer in answers.items() if not isinstance(answer, Exception)}
        # Not where there is more to do: Redis may let a shard be read and not written, when its disk is full, and then
        # each try would be the first one.
        self._resting.succeeded([shard for shard, turn in turns.items() if shard in advances or not turn.entries])
        self._let_rest(errors)
        for shard, advance in advances.items():
            if (turn := turns.get(shard)) is None:
                continue
            is_ours, owned = turn.moved, self._owned.get(shard)
            if is_ours and owned is not None and owned.lineage == advance.lineage:
                self.health.entries_published_total += advance.entry - owned.published
                owned.published = advance.entry
            elif owned is not None:
                self._leases.forget(shard, owned)
            if is_ours and self._on_published is not None:
                self._on_published(shard, advance.lineage, advance.entry)
        return turns

    def _let_rest(self, errors: Mapping[str, Exception]) -> None:
        """Try these shards again after a pause of their own. Each is told of when it begins to fail."""
        if not errors:
            return
        self._dirty.update(errors)
        self.health.failures_total += 1
        if (text := self._resting.failed(errors)) is not None:
            logger.warning("relay: %s", text)

    async def _stop(self, published: InFlight) -> None:
        """Close the shard: there are two different entries under one number, and this relay cannot tell which one is
        right."""
        self.health.foreign_total += 1
        closed = await self._scripts.stop_shard(published.shard, published.lineage, token=self._leases.token)
        logger.critical(
            "relay: JetStream has another message in the place of entry %d:%d of shard %s; %s",
            published.lineage.epoch,
            published.entry,
            published.shard,
            "it is closed until it is rebuilt" if closed else "it is no longer ours",
        )
        self._owned.pop(published.shard, None)

    def _is_stream_checked(self) -> bool:
        """Whether the stream was looked at lately, and since then no shard was taken up."""
        is_recent = asyncio.get_running_loop().time() - self._stream_checked_at_s < _CHECK_STREAM_EVERY_S
        return is_recent and all(owned.is_checked for owned in self._owned.values())

    async def _check_stream(self, jetstream: JetStreamContext) -> None:
        """Every few seconds: is it still the stream into which we published? If it lost messages, publish them again.

        A recreated stream has another creation time. One that lost its tail (power loss without fsync) has a last
        sequence below one that was acknowledged, or has given that number out again. Where the archiver misses entries
        that were published, it has left a mark at the shard's cursors (``republish``).
        """
        if self._is_stream_checked():
            self._leases.was_answered()
            return
        now_s = asyncio.get_running_loop().time()
        owned = dict(self._owned)
        info = await ensure_stream(jetstream, self._stream_limits)
        self._leases.was_answered()
        self._stream_id = str(info.created)
        last_seq = info.state.last_seq
        if self._lost_from_seq is not None:
            last_seq = min(last_seq, self._lost_from_seq - 1)
        lost = await self._scripts.find_unpublished(list(owned), stream_id=self._stream_id, last_seq=last_seq)
        for shard, one in owned.items():
            one.is_checked = shard not in lost
        for shard in sorted(lost):
            logger.error("relay: JetStream lost messages of shard %s, publishing again from the archived cursor", shard)
            self.health.rewinds_total += 1
            if await self._scripts.rewind_published(shard, token=self._leases.token, stream_id=self._stream_id):
                await self._leases.adopt([shard])
        # Set only now: a check that failed half-way is repeated before anything is published. What is published from
        # now on gets a higher number than the stream had at that look.
        self._stream_checked_at_s = now_s
        self._highest_seq, self._lost_from_seq = info.state.last_seq, None


def _ignore_lost_hint(task: asyncio.Future[None]) -> None:
    """A lost hint does no harm: the owner looks by itself within the poll interval."""
    if not task.cancelled():
        task.exception()
