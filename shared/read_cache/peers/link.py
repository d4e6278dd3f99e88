"""The stream to one peer. Gets that are asked for in one moment go in one message, and so do their answers.

Python's gRPC takes about a quarter of a millisecond per message, whatever is in it; so what counts is how many gets
share one. Nothing waits for that: what has gathered while one message was written goes with the next, as in the group
commit of bids.

A peer that is silent while it owes answers is taken for dead: it sends a sign of life while it loads. Then all that
waits for it fails at once, and the stream is opened anew for the next get.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import grpc

from shared.read_cache.errors import Overloaded, PeerFailed
from shared.read_cache.peers import cache_pb2 as pb
from shared.read_cache.peers.breaker import Breaker
from shared.read_cache.peers.wire import KEYS_PER_ASK_MAX, SERVICE, Tls, open_channel
from shared.read_cache.remote import Fetched, Heard, OnFetched
from shared.read_cache.ring import Node
from shared.supervision import heed_cancellation

PENDING_MAX: Final = 50_000
WAIT_MAX_S: Final = 15.0
"""The longest wait for an answer, even of a peer that gives signs of life: longer than the wait for an origin and its
answer together."""
_LOOKS_PER_TIMEOUT: Final = 4

_REASONS: Final[dict[int, str]] = {
    pb.FAILED: "its origin failed",
    pb.BUSY: "is busy",
    pb.OTHER_RING: "means another ring",
    pb.UNKNOWN_GROUP: "knows no such group",
    pb.TOO_BIG: "has a value that is too large to send",
    pb.NOT_KEPT: "keeps nothing",
}


class Kind(NamedTuple):
    """What gets of one message have in common."""

    epoch: int
    fingerprint: int
    group: str
    kept_only: bool


class _Batch:
    __slots__ = ("asked_s", "calls", "keys", "kind")

    def __init__(self, kind: Kind, asked_s: float) -> None:
        self.kind = kind
        self.keys: list[str] = []
        self.calls: list[OnFetched] = []
        self.asked_s = asked_s


class Link:
    """Connects at the first get."""

    def __init__(
        self,
        node: Node,
        *,
        timeout_s: float,
        tls: Tls | None = None,
        on_other_ring: Callable[[int], None] = lambda epoch: None,
    ) -> None:
        """
        Args:
            timeout_s: silence while an answer is owed.
            on_other_ring: called with the peer's epoch where that is not the one of the question; 0: the peer has none.
        """
        self.node = node
        self.breaker = Breaker()
        self._timeout_s = timeout_s
        self._on_other_ring = on_other_ring
        self._channel = open_channel(node.address, tls)
        self._open_stream = self._channel.stream_stream(
            f"/{SERVICE}/Gets", request_serializer=pb.Ask.SerializeToString, response_deserializer=pb.Answer.FromString
        )
        self._forget = self._channel.unary_unary(
            f"/{SERVICE}/Forget",
            request_serializer=pb.ForgetRequest.SerializeToString,
            response_deserializer=pb.ForgetReply.FromString,
        )
        self._keys = self._channel.unary_unary(
            f"/{SERVICE}/Keys",
            request_serializer=pb.KeysRequest.SerializeToString,
            response_deserializer=pb.KeysReply.FromString,
        )
        self._next = 1
        self._pending: dict[int, OnFetched] = {}
        self._sent: deque[tuple[float, int]] = deque()
        """When each message was asked for, and the number after its last one."""
        self._unsent: deque[_Batch] = deque()
        self._filling: dict[Kind, _Batch] = {}
        self._newest: _Batch | None = None
        """Of the messages that are being filled, the one to which a get was added last."""
        self._wake = asyncio.Event()
        self._stream: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._silent_looks = 0
        self._closed = False
        self.messages = 0
        """Messages that were sent, on this stream and earlier ones."""

    def ask(self, kind: Kind, key: str, on_fetched: OnFetched) -> None:
        """Ask for the key; ``on_fetched`` is called exactly once."""
        if self._closed or len(self._pending) >= PENDING_MAX:
            reason = "is not asked any more" if self._closed else "has too much to answer"
            on_fetched(PeerFailed(self.node.name, reason))
            return
        batch = self._newest
        if batch is None or batch.kind is not kind or len(batch.keys) >= KEYS_PER_ASK_MAX:
            batch = self._filling.get(kind)
            if batch is None or len(batch.keys) >= KEYS_PER_ASK_MAX:
                batch = self._begin(kind)
            self._newest = batch
        batch.keys.append(key)
        batch.calls.append(on_fetched)

    def _begin(self, kind: Kind) -> _Batch:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        batch = self._filling[kind] = _Batch(kind, now_s)
        self._unsent.append(batch)
        self._wake.set()
        if self._stream is None:
            self._stream = loop.create_task(self._run(), name=f"peer {self.node.name}")
        if self._watch is None:
            # Nothing was owed until now.
            self._silent_looks = 0
            self._watch = loop.call_later(self._timeout_s / _LOOKS_PER_TIMEOUT, self._look)
        return batch

    async def _run(self) -> None:
        """One life of the stream."""
        reason = "has ended the stream"
        call = self._open_stream()
        writer = asyncio.get_running_loop().create_task(self._write(call))
        try:
            async for answer in call:
                self._on_answer(answer)
        except grpc.aio.AioRpcError as error:
            reason = f"{error.code().name}: {error.details()}"
        except asyncio.CancelledError:
            # _break or close has cancelled this task, and tells those who wait.
            raise
        finally:
            writer.cancel()
            call.cancel()
            if self._stream is asyncio.current_task():
                self._stream = None
                self._fail_all(reason)

    async def _write(self, call: grpc.aio.StreamStreamCall[Any, pb.Answer]) -> None:
        # A call that has ended raises when it is read.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._unsent:
                    await call.write(self._next_message())

    def _next_message(self) -> pb.Ask:
        batch = self._unsent.popleft()
        kind = batch.kind
        if self._filling.get(kind) is batch:
            del self._filling[kind]
        if self._newest is batch:
            self._newest = None
        first = self._next
        self._next += len(batch.keys)
        self._pending.update(zip(range(first, self._next), batch.calls, strict=True))
        self._sent.append((batch.asked_s, self._next))
        self.messages += 1
        return pb.Ask(
            ring=pb.RingId(epoch=kind.epoch, fingerprint=kind.fingerprint),
            forwarded=True,
            timeout_ms=int(self._timeout_s * 1_000),
            group=kind.group,
            first=first,
            keys=batch.keys,
            kept_only=kind.kept_only,
        )

    def _on_answer(self, answer: pb.Answer) -> None:
        self._silent_looks = 0
        self.breaker.succeeded()
        take = self._pending.pop
        other_ring = False
        heard = Heard(answer.heard.changes, answer.heard.rebuilds, answer.heard.stream)
        for number, state, value, fresh_ms in zip(
            answer.numbers, answer.states, answer.values, answer.fresh_ms, strict=True
        ):
            on_fetched = take(number, None)
            if on_fetched is None:
                continue
            if state == pb.FOUND:
                on_fetched(Fetched(value, fresh_ms / 1_000, heard))
            elif state == pb.ABSENT:
                on_fetched(Fetched(None, fresh_ms / 1_000, heard))
            elif state == pb.OVERLOADED:
                on_fetched(Overloaded("the origin of the key's owner is busy"))
            else:
                other_ring |= state == pb.OTHER_RING
                reason = _REASONS.get(state, f"answers with the unknown state {state}")
                on_fetched(PeerFailed(self.node.name, reason, other_ring=state == pb.OTHER_RING))
        if other_ring:
            self._on_other_ring(answer.ring.epoch)

    def _look(self) -> None:
        """Whether the peer still says something, and nothing has waited for too long."""
        self._watch = None
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        while self._sent and (not self._pending or now_s - self._sent[0][0] > WAIT_MAX_S):
            _, end = self._sent.popleft()
            # Numbers go up, and a dictionary keeps their order.
            while self._pending and (number := next(iter(self._pending))) < end:
                self._pending.pop(number)(PeerFailed(self.node.name, f"did not answer within {WAIT_MAX_S:g} s"))
        if not self._pending and not self._unsent:
            return
        # Looks are counted, and not seconds: if this process itself stood still, it reads what the peer has said
        # meanwhile before the next look.
        self._silent_looks += 1
        if self._silent_looks > _LOOKS_PER_TIMEOUT:
            self._break(f"was silent for {self._timeout_s:g} s")
            return
        self._watch = loop.call_later(self._timeout_s / _LOOKS_PER_TIMEOUT, self._look)

    def _break(self, reason: str) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()
        self._fail_all(reason)

    def _fail_all(self, reason: str) -> None:
        calls = list(self._pending.values())
        for batch in self._unsent:
            calls += batch.calls
        self._pending.clear()
        self._sent.clear()
        self._unsent.clear()
        self._filling.clear()
        self._newest = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if not calls:
            return
        if not self._closed:
            self.breaker.failed(asyncio.get_running_loop().time())
        error = PeerFailed(self.node.name, reason, is_dead=True)
        for on_fetched in calls:
            on_fetched(error)

    async def forget(self, group: str, keys: Sequence[str] | None) -> pb.RingId:
        """Have the peer forget keys, or all of the group (None). Returns the ring that the peer has.

        Raises:
            PeerFailed: it did not confirm it.
        """
        try:
            request = pb.ForgetRequest(group=group, keys=keys or [], all=keys is None)
            reply = await self._forget(request, timeout=self._timeout_s)
        except asyncio.CancelledError as error:
            raise self._closed_meanwhile() from error
        except grpc.aio.AioRpcError as error:
            raise PeerFailed(self.node.name, f"{error.code().name}: {error.details()}", is_dead=True) from error
        return reply.ring

    async def keys_for(self, node: Node, epoch: int, fingerprint: int, group: str, limit: int) -> list[str]:
        """The keys that this peer keeps and that are ``node``'s now; those that would stay longest come first.

        Raises:
            PeerFailed: it did not say, or means another ring.
        """
        try:
            request = pb.KeysRequest(
                ring=pb.RingId(epoch=epoch, fingerprint=fingerprint), name=node.name, group=group, limit=limit
            )
            # The peer looks through all that it keeps.
            reply = await self._keys(request, timeout=max(5.0, self._timeout_s))
        except asyncio.CancelledError as error:
            raise self._closed_meanwhile() from error
        except grpc.aio.AioRpcError as error:
            raise PeerFailed(self.node.name, f"{error.code().name}: {error.details()}") from error
        if (reply.ring.epoch, reply.ring.fingerprint) != (epoch, fingerprint):
            raise PeerFailed(self.node.name, "means another ring", other_ring=True)
        return list(reply.keys)

    def _closed_meanwhile(self) -> PeerFailed:
        """The library cancels a call whose channel is closed. For the task that waits, that is no cancellation.

        Raises:
            asyncio.CancelledError: the task that waits was cancelled itself.
        """
        heed_cancellation()
        return PeerFailed(self.node.name, "is not asked any more")

    async def close(self) -> None:
        """Hang up; whoever waits is told that the peer failed."""
        self._closed = True
        stream = self._stream
        self._break("is not asked any more")
        if stream is not None:
            await asyncio.wait([stream])
        await self._channel.close()
