"""Nodes as JetStream has agreed on them. Its own Raft does the agreeing; here is what a node writes and reads.

Two buckets of keys and values:

``<bucket>_leases``
    one key per node, which vanishes ``lease_s`` after it was last written. NATS' clock alone decides.
``<bucket>_ring``
    one key, ``ring``: the nodes. It is changed by compare-and-set, and its revision is the ring's epoch.

A node writes its lease, reads the ring, and adds itself where it is missing. Any node takes another out whose lease
it has found missing in two looks one after the other: after an outage of NATS all leases have run out, and the first
to come back must not throw the others out. A node that leaves takes itself out.

*When a view may be relied on.* For ``lease_s`` from the beginning of the look that confirmed it: the lease was
written after that moment, so at NATS it ends later than here. A process that was stopped, or cut off, for longer
finds that out by its own clock, at its first question, and has no view until it was confirmed again. Then the cache
drops its values, since nobody could tell this process to forget one of them meanwhile.

Reads go to the leader of the key's Raft group and not to a replica that may be behind: whoever asks :meth:`newest`
after the commit of a change learns of every node that has joined before it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from typing import Final

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue
from typing_extensions import override

from shared.clients.nats import NatsLink, StreamUnavailable
from shared.clients.stream_settings import StreamSettings
from shared.pacing.backoff import set_within
from shared.read_cache.errors import MembershipUnavailable
from shared.read_cache.membership.clock import now_s
from shared.read_cache.membership.view import Relying, View
from shared.read_cache.ring import NODES_MAX, Node, Ring

logger = logging.getLogger(__name__)

LEASE_S: Final = 3.0
_LOOKS_PER_LEASE: Final = 6
_RING_KEY: Final = "ring"
_TRIES: Final = 5
_SOONEST_S: Final = 0.05
_LEAVE_S: Final = 2.0
_VALUE_BYTES_MAX: Final = 64 * 1024
_BUCKET_BYTES_MAX: Final = 1024**2
_AWAY: Final = (nats.errors.Error, OSError, TimeoutError, StreamUnavailable, MembershipUnavailable)


class Member(msgspec.Struct, frozen=True):
    """A node as the ring's key holds it. ``life`` is another one after each start of its process."""

    name: str
    address: str
    weight: int
    life: str


class RingValue(msgspec.Struct, frozen=True):
    """What is under the ring's key."""

    members: list[Member]


class JetStreamMembership(Relying):
    """The membership as a node sees it, or a process that only reads."""

    def __init__(
        self,
        link: NatsLink,
        *,
        node: Node | None = None,
        lease_s: float = LEASE_S,
        bucket: str = "read_cache",
    ) -> None:
        """
        Args:
            node: who this is; None: this process only reads the ring.
            lease_s: the same for all nodes of a cluster. Where the bucket was made with another value, that one holds.
            bucket: the beginning of the buckets' names.
        """
        super().__init__()
        self._link = link
        self._node = node
        self._life = uuid.uuid4().hex
        self._lease_s = lease_s
        self._look_s = lease_s / _LOOKS_PER_LEASE
        self._timeout_s = max(0.3, lease_s / 3)
        self._bucket = bucket
        self._subject = f"{bucket}.ring_changed"
        self._wake = asyncio.Event()
        self._opened: tuple[Client, KeyValue, KeyValue] | None = None
        self._subscribed: Client | None = None
        self._missing: set[str] = set()
        """The nodes whose lease was missing in the last look."""
        self._has_joined = False
        self._ring = Ring()
        self._failing = False

    @override
    def suspect(self, epoch: int) -> None:
        self._wake.set()

    @override
    async def newest(self) -> View | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                _, _, rings = await self._open()
                revision, members = await self._read(rings)
        except _AWAY as error:
            logger.warning("the cache's ring cannot be read: %s", str(error) or "timed out")
        else:
            self._reliance.replace(self._view_of(revision, members))
        return self.current()

    @override
    async def run(self) -> None:
        try:
            while True:
                self._wake.clear()
                try:
                    async with asyncio.timeout(self._lease_s):
                        await self._look()
                    if self._failing:
                        logger.warning("the nodes agree on the cache's ring again")
                    self._failing = False
                except _AWAY as error:
                    # Missing leases of an earlier look mean nothing after an outage.
                    self._missing.clear()
                    self._opened = None
                    if not self._failing:
                        logger.warning("the nodes cannot agree on the cache's ring: %s", str(error) or "timed out")
                    self._failing = True
                # A bound on the rate of looks, however often a peer is suspected; it also spreads out the nodes.
                await asyncio.sleep(_SOONEST_S)
                await set_within(self._wake, self._look_s * random.uniform(0.8, 1.0) - _SOONEST_S)
        finally:
            if self._node is not None and self._has_joined:
                await self._leave()
            self._reliance.drop()

    # A look

    async def _look(self) -> None:
        began_s = now_s()
        client, leases, rings = await self._open()
        revision, members = await self._read(rings)
        if self._node is not None:
            if self._is_replaced(members):
                if not await self._is_free(client, self._node.name):
                    self._reliance.drop()
                    raise MembershipUnavailable(f"another process has joined as {self._node.name}")
                self._has_joined = False
            await leases.put(self._node.name, self._life.encode())
            revision, members = await self._agree(client, rings, revision, members)
        view = self._view_of(revision, members)
        if self._node is not None and view.here is None:
            raise MembershipUnavailable("this node could not join: the ring was changed by others again and again")
        self._reliance.renew(view, began_s + self._lease_s)

    def _is_replaced(self, members: list[Member]) -> bool:
        """Whether this process was in the ring and another one has joined under its name since."""
        assert self._node is not None
        mine = next((member for member in members if member.name == self._node.name), None)
        return self._has_joined and mine is not None and mine.life != self._life

    async def _agree(
        self, client: Client, rings: KeyValue, revision: int, members: list[Member]
    ) -> tuple[int, list[Member]]:
        """Bring the ring in line with the leases; the ring that is in force then."""
        assert self._node is not None
        alive = await self._alive(client)
        node = self._node
        me = Member(node.name, node.address, node.weight, self._life)
        for _ in range(_TRIES):
            gone = {member.name for member in members if member.name not in alive and member.name != me.name}
            wanted = sorted(
                [*(each for each in members if each.name != me.name and each.name not in gone & self._missing), me],
                key=lambda member: member.name,
            )
            if len(wanted) > NODES_MAX:
                raise MembershipUnavailable(f"the cache's ring is full: it has {NODES_MAX} nodes")
            if wanted == members:
                self._missing = gone
                self._has_joined = True
                return revision, members
            try:
                revision = await rings.update(_RING_KEY, msgspec.json.encode(RingValue(wanted)), last=revision)
            except KeyWrongLastSequenceError:
                revision, members = await self._read(rings)
                continue
            members = wanted
            self._missing = gone - self._missing
            self._has_joined = True
            # The others would see it at their next look; this makes it milliseconds.
            await client.publish(self._subject, b"")
            return revision, members
        raise MembershipUnavailable("the cache's ring was changed by others again and again")

    async def _leave(self) -> None:
        assert self._node is not None
        try:
            async with asyncio.timeout(_LEAVE_S):
                client, _, rings = await self._open()
                for _ in range(_TRIES):
                    revision, members = await self._read(rings)
                    wanted = [member for member in members if member.life != self._life]
                    if wanted == members:
                        return
                    try:
                        await rings.update(_RING_KEY, msgspec.json.encode(RingValue(wanted)), last=revision)
                    except KeyWrongLastSequenceError:
                        continue
                    await client.publish(self._subject, b"")
                    await client.flush()
                    return
        except _AWAY as error:
            logger.warning(
                "this node stops, and could not take itself out of the cache's ring: %s", str(error) or "timed out"
            )

    # What JetStream has

    async def _open(self) -> tuple[Client, KeyValue, KeyValue]:
        client = await self._link.connected()
        if self._opened is None or self._opened[0] is not client:
            jetstream = client.jetstream(timeout=self._timeout_s)
            leases = await self._bucket_of(jetstream, "leases", ttl_s=self._lease_s)
            rings = await self._bucket_of(jetstream, "ring", ttl_s=None)
            if self._subscribed is not client:
                await client.subscribe(self._subject, cb=self._on_change)
                self._subscribed = client
            self._opened = (client, leases, rings)
        return self._opened

    async def _bucket_of(self, jetstream: JetStreamContext, suffix: str, *, ttl_s: float | None) -> KeyValue:
        name = f"{self._bucket}_{suffix}"
        try:
            return await jetstream.key_value(name)
        except BucketNotFoundError:
            config = KeyValueConfig(
                bucket=name,
                ttl=ttl_s,
                history=1,
                storage=StorageType.FILE,
                replicas=StreamSettings().nats_stream_replicas,
                max_value_size=_VALUE_BYTES_MAX,
                max_bytes=_BUCKET_BYTES_MAX,
                direct=False,
            )
            return await jetstream.create_key_value(config)

    async def _on_change(self, message: Msg) -> None:
        self._wake.set()

    async def _read(self, rings: KeyValue) -> tuple[int, list[Member]]:
        try:
            entry = await rings.get(_RING_KEY)
        except KeyNotFoundError as error:
            # A deleted key still has a revision: the next change has to name that of the deletion.
            return (error.entry.revision or 0 if error.entry is not None else 0), []
        try:
            members = msgspec.json.decode(entry.value or b"", type=RingValue).members
            _ring_of(members)
        except ValueError as error:
            where = f"the key {_RING_KEY} of the bucket {self._bucket}_ring"
            raise MembershipUnavailable(f"{where} cannot be read: {error}") from error
        return entry.revision or 0, members

    async def _alive(self, client: Client) -> set[str]:
        """The nodes whose leases exist."""
        prefix = f"$KV.{self._bucket}_leases."
        info = await client.jetstream(timeout=self._timeout_s).stream_info(
            f"KV_{self._bucket}_leases", subjects_filter=f"{prefix}>"
        )
        return {subject.removeprefix(prefix) for subject in info.state.subjects or {}}

    async def _is_free(self, client: Client, name: str) -> bool:
        return name not in await self._alive(client)

    def _view_of(self, revision: int, members: list[Member]) -> View:
        ring = _ring_of(members)
        if ring.fingerprint != self._ring.fingerprint:
            self._ring = ring
            names = ", ".join(node.name for node in ring.nodes) or "none"
            logger.info("cache nodes in epoch %d: %s", revision, names)
        here = next((member.name for member in members if member.life == self._life), None)
        return View(max(1, revision), self._ring, here)


def _ring_of(members: list[Member]) -> Ring:
    """
    Raises:
        ValueError: they cannot be a ring.
    """
    return Ring(Node(member.name, member.address, member.weight) for member in members)
