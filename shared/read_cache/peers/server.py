"""A node's gRPC server: answers peers, and readers without a ring."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Final, Protocol

import grpc

from shared.read_cache.errors import KeyInvalid, OriginSilent, Overloaded
from shared.read_cache.groups.group import Group, OnServed
from shared.read_cache.keys import checked_key
from shared.read_cache.membership.view import Membership
from shared.read_cache.peers import cache_pb2 as pb
from shared.read_cache.peers.line import LOADING_MAX, Line, Ring
from shared.read_cache.peers.wire import (
    KEYS_PER_ASK_MAX,
    RPCS_MAX,
    SERVER_OPTIONS,
    SERVICE,
    VALUE_BYTES_MAX,
    Tls,
    checked_address,
)
from shared.read_cache.remote import Fetched, Heard
from shared.read_cache.stats import Stats

logger = logging.getLogger(__name__)

STOP_S: Final = 2.0
KEYS_MAX: Final = 50_000
"""The most keys of an answer to Keys; at 60 characters each they take less than a message may hold."""
_KEYS_BYTES_MAX: Final = 3 * 1024**2
_KEYS_AT_A_TIME: Final = 500

_Context = grpc.aio.ServicerContext[pb.Ask, pb.Answer]


class Kept(Protocol):
    """What the server asks the cache of this node: :class:`shared.read_cache.cache.ReadCache`."""

    @property
    def bytes_used(self) -> int: ...

    @property
    def bytes_max(self) -> int: ...

    @property
    def entries(self) -> int: ...

    @property
    def stats(self) -> Stats: ...

    @property
    def heard(self) -> Heard: ...


class PeerServer:
    """Listens on loopback or a private address only. Started once."""

    def __init__(
        self,
        groups: Mapping[str, Group],
        membership: Membership,
        kept: Kept,
        *,
        address: str,
        tls: Tls | None = None,
    ) -> None:
        """
        Raises:
            ValueError: the address is not ``host:port`` of loopback or a private network.
        """
        self._groups = groups
        self._membership = membership
        self._kept = kept
        self._address = checked_address(address)
        self._tls = tls
        self._server: grpc.aio.Server | None = None
        self._stopping = asyncio.Event()

    async def start(self) -> int:
        """Serve. Returns the port, for an ``address`` with port 0.

        Raises:
            OSError: the address is taken.
        """
        server = grpc.aio.server(options=SERVER_OPTIONS, maximum_concurrent_rpcs=RPCS_MAX)
        server.add_generic_rpc_handlers((self._handlers(),))
        try:
            if self._tls is None:
                port = server.add_insecure_port(self._address)
            else:
                port = server.add_secure_port(self._address, self._tls.server())
        except RuntimeError as error:
            raise OSError(f"the cache node cannot listen on {self._address}: {error}") from error
        await server.start()
        self._server = server
        return port

    async def stop(self, grace_s: float = STOP_S) -> None:
        """Take no new question; those under way have ``grace_s`` seconds."""
        self._stopping.set()
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace_s)

    def _handlers(self) -> grpc.GenericRpcHandler:
        unary = grpc.unary_unary_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Gets": grpc.stream_stream_rpc_method_handler(
                    self._gets,
                    request_deserializer=pb.Ask.FromString,
                    response_serializer=pb.Answer.SerializeToString,
                ),
                "Get": unary(
                    self._get, request_deserializer=pb.Ask.FromString, response_serializer=pb.Answer.SerializeToString
                ),
                "Forget": unary(
                    self._forget,
                    request_deserializer=pb.ForgetRequest.FromString,
                    response_serializer=pb.ForgetReply.SerializeToString,
                ),
                "Keys": unary(
                    self._keys,
                    request_deserializer=pb.KeysRequest.FromString,
                    response_serializer=pb.KeysReply.SerializeToString,
                ),
                "Status": unary(
                    self._status,
                    request_deserializer=pb.StatusRequest.FromString,
                    response_serializer=pb.StatusReply.SerializeToString,
                ),
            },
        )

    # Gets

    def _ring_now(self) -> Ring | None:
        view = self._membership.current()
        return None if view is None else (view.epoch, view.ring.fingerprint)

    def _heard_now(self) -> Heard:
        return self._kept.heard

    async def _gets(self, asks: AsyncIterator[pb.Ask], context: _Context) -> None:
        line = Line(self._ring_now, self._heard_now)
        writing = asyncio.create_task(line.write(context.write))
        reading = asyncio.create_task(self._read(asks, line))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({reading, stopping, writing}, return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()
            if not writing.done():
                # Answer all questions before the stream ends, also where this node is leaving.
                await line.settled()
        finally:
            tasks = (reading, stopping, writing)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, asks: AsyncIterator[pb.Ask], line: Line) -> None:
        async for ask in asks:
            self._take(ask, line)
            await line.room()

    async def _get(self, ask: pb.Ask, context: _Context) -> pb.Answer:
        line = Line(self._ring_now, self._heard_now)
        self._take(ask, line)
        # The deadline of the caller bounds this wait.
        await line.loaded()
        return line.take()

    def _take(self, ask: pb.Ask, line: Line) -> None:
        """Answer what is kept at once, and begin to load the rest."""
        line.timeout_s = max(0.01, ask.timeout_ms / 1_000)
        numbers = range(ask.first, ask.first + len(ask.keys))
        ring, ringless = (ask.ring.epoch, ask.ring.fingerprint), not ask.ring.epoch
        if not ringless and ring != self._ring_now():
            self._membership.suspect(ask.ring.epoch)
            for number in numbers:
                line.add(number, pb.OTHER_RING)
            return
        group = self._groups.get(ask.group)
        if group is None or len(ask.keys) > KEYS_PER_ASK_MAX:
            state = pb.UNKNOWN_GROUP if group is None else pb.BUSY
            for number in numbers:
                line.add(number, state, ringless=ringless)
            return
        forwarded, kept_only = ask.forwarded or not ringless, ask.kept_only
        keys = list(ask.keys)
        for number, key, kept in zip(numbers, keys, group.kept_for_peer(keys), strict=True):
            if kept is not None:
                self._found(line, number, kept, ringless)
            elif kept_only:
                line.add(number, pb.NOT_KEPT, ringless=ringless)
            elif line.loading >= LOADING_MAX:
                line.add(number, pb.BUSY, ringless=ringless)
            else:
                self._load(line, number, group, key, ring, forwarded)

    def _found(self, line: Line, number: int, found: Fetched, ringless: bool) -> None:
        value = found.value
        if value is None:
            line.add(number, pb.ABSENT, b"", found.fresh_s, ringless=ringless)
        elif len(value) > VALUE_BYTES_MAX:
            line.add(number, pb.TOO_BIG, ringless=ringless)
        else:
            line.add(number, pb.FOUND, value, found.fresh_s, ringless=ringless)

    def _load(self, line: Line, number: int, group: Group, key: str, ring: Ring, forwarded: bool) -> None:
        ringless = not ring[0]
        try:
            checked_key(key)
        except KeyInvalid:
            line.add(number, pb.FAILED, ringless=ringless)
            return

        def served(answer: Fetched | Exception) -> None:
            line.ended()
            if not ringless and ring != self._ring_now():
                line.add(number, pb.OTHER_RING)
            elif isinstance(answer, Fetched):
                self._found(line, number, answer, ringless)
            else:
                # An origin that is silent for this node alone can be asked by another one.
                is_busy = isinstance(answer, Overloaded) and not isinstance(answer, OriginSilent)
                state = pb.OVERLOADED if is_busy else pb.FAILED
                line.add(number, state, ringless=ringless)

        line.began()
        if forwarded:
            group.load_for_peer(key, served)
        else:
            task = asyncio.get_running_loop().create_task(_find(group, key))
            task.add_done_callback(partial(_tell, served))

    # The rest

    async def _forget(self, request: pb.ForgetRequest, context: _Context) -> pb.ForgetReply:
        group = self._groups.get(request.group)
        if group is not None:
            if request.all:
                group.forget_all()
            else:
                group.forget(*request.keys)
        epoch, fingerprint = self._ring_now() or (0, 0)
        return pb.ForgetReply(ring=pb.RingId(epoch=epoch, fingerprint=fingerprint))

    async def _keys(self, request: pb.KeysRequest, context: _Context) -> pb.KeysReply:
        view = self._membership.current()
        group = self._groups.get(request.group)
        epoch, fingerprint = self._ring_now() or (0, 0)
        ring = pb.RingId(epoch=epoch, fingerprint=fingerprint)
        if view is None or ring != request.ring:
            self._membership.suspect(request.ring.epoch)
            return pb.KeysReply(ring=ring)
        if group is None:
            return pb.KeysReply(ring=ring)
        found: list[str] = []
        size = 0
        limit = min(request.limit, KEYS_MAX)
        for number, key in enumerate(group.keys_kept(), start=1):
            if view.ring.owner(key).name == request.name:
                found.append(key)
                size += len(key) + 4
                if len(found) >= limit or size > _KEYS_BYTES_MAX:
                    break
            if number % _KEYS_AT_A_TIME == 0:
                # Serve others in between: to look through a full store takes a tenth of a second and more.
                await asyncio.sleep(0)
        return pb.KeysReply(keys=found, ring=ring)

    async def _status(self, request: pb.StatusRequest, context: _Context) -> pb.StatusReply:
        view = self._membership.current()
        epoch, fingerprint = self._ring_now() or (0, 0)
        return pb.StatusReply(
            name=(view.here or "") if view is not None else "",
            ring=pb.RingId(epoch=epoch, fingerprint=fingerprint),
            nodes=[node.name for node in view.ring.nodes] if view is not None else [],
            bytes_used=self._kept.bytes_used,
            bytes_max=self._kept.bytes_max,
            entries=self._kept.entries,
            counts=self._kept.stats.as_dict(),
        )


async def _find(group: Group, key: str) -> Fetched:
    """Find a value for a reader that knows no ring, whichever node has it."""
    return Fetched(await group.get(key), 0.0)


def _tell(served: OnServed, task: asyncio.Task[Fetched]) -> None:
    if task.cancelled():
        served(Overloaded("the load was cancelled"))
    elif (error := task.exception()) is not None:
        served(error if isinstance(error, Exception) else RuntimeError(str(error)))
    else:
        served(task.result())
