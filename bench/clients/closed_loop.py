"""A closed-loop HTTP client, cheap enough not to be what is measured: raw protocols on uvloop, one request in flight
each."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, cast

from typing_extensions import override

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "
# In the answer to a batch of bids, or of items.
_BATCH, _STATUS, _ACCEPTED = b'{"results":', b',"status":', b',"status":201,'
_TEXT_STATUS = b',"status":"'


BIDDERS: Final = 1_009
"""How many bidders bid in turn."""


@dataclass(slots=True)
class Tally:
    """What the connections counted. ``latencies_s`` is a sample of the requests."""

    accepted: int = 0
    refused: int = 0
    failed: int = 0
    latencies_s: list[float] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """All answers."""
        return self.accepted + self.refused + self.failed


class _Connection(asyncio.Protocol):
    def __init__(self, tally: Tally, requests: Iterator[bytes], sample_every: int) -> None:
        self._tally = tally
        self._sample_every = sample_every
        self._requests = requests
        self._buffer = b""
        self._sent_at = 0.0
        self._count = 0
        self.transport: asyncio.Transport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transport is one, but not by its type
        self._send()

    def _send(self) -> None:
        assert self.transport is not None
        self._count += 1
        if self._count % self._sample_every == 0:
            self._sent_at = time.perf_counter()
        self.transport.write(next(self._requests))

    @override
    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        end = data.find(_HEAD_END)
        if end < 0:
            self._buffer = data
            return
        at = data.find(_LENGTH, 0, end)
        length = int(data[at + len(_LENGTH) : data.find(b"\r\n", at)])
        if len(data) < end + len(_HEAD_END) + length:
            self._buffer = data
            return
        self._buffer = b""
        status = data[9:12]
        if status == b"201":
            self._tally.accepted += 1
        elif status == b"200" and _BATCH in data:
            self._tally.accepted += data.count(_ACCEPTED)
            # Created items have a status of their own, which is a text.
            self._tally.refused += data.count(_STATUS) - data.count(_TEXT_STATUS) - data.count(_ACCEPTED)
        elif status == b"200":
            self._tally.refused += 1
        else:
            self._tally.failed += 1
        if self._count % self._sample_every == 0:
            self._tally.latencies_s.append(time.perf_counter() - self._sent_at)
        self._send()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._tally.failed += 1


def bid_requests(item_ids: list[str], *, keyed: bool, start_minor: int = 1) -> Iterator[bytes]:
    """Endless bids, each one cent above the one before on the same item, over the items in turn."""
    heads = [
        f"POST /api/v1/items/{item_id}/bid HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n".encode()
        for item_id in item_ids
    ]
    for number in itertools.count():
        minor = start_minor + number // len(heads)
        key = f',"bid_id":"bench-{number:012d}"' if keyed else ""
        amount = f"{minor // 100}.{minor % 100:02d}"
        body = f'{{"user_id":"user-{number % BIDDERS:04d}","amount":{amount}{key}}}'.encode()
        yield b"%bcontent-length: %d\r\n\r\n%b" % (heads[number % len(heads)], len(body), body)


def batch_requests(item_ids: list[str], *, per_request: int = 100) -> Iterator[bytes]:
    """Endless requests of many bids, each one cent above the one before on the same item, over the items in turn."""
    for number in itertools.count(step=per_request):
        bids = []
        for each in range(number, number + per_request):
            minor = 1 + each // len(item_ids)
            item_id, amount = item_ids[each % len(item_ids)], f"{minor // 100}.{minor % 100:02d}"
            bids.append(f'{{"item_id":"{item_id}","user_id":"user-{each % BIDDERS:04d}","amount":{amount}}}')
        body = f'{{"bids":[{",".join(bids)}]}}'.encode()
        head = b"POST /api/v1/bids:batch HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        yield b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


def too_low_requests(item_ids: list[str]) -> Iterator[bytes]:
    """Endless bids of which nine in ten are far too low, as on an item that a crowd wants."""
    rising = bid_requests(item_ids, keyed=False, start_minor=1_000)
    low = bid_requests(item_ids, keyed=False)
    too_low = [next(low) for _ in range(9 * len(item_ids))]
    while True:
        yield next(rising)
        yield from too_low[:9]


def read_requests(item_ids: list[str]) -> Iterator[bytes]:
    """Endless reads of the items in turn."""
    return itertools.cycle(
        [f"GET /api/v1/items/{item_id} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode() for item_id in item_ids]
    )


def new_item_requests(item_ids: list[str]) -> Iterator[bytes]:
    """Endless new items, each with an id of its own."""
    for number in itertools.count():
        body = (
            f'{{"id":"{item_ids[0]}-{number}","name":"Desk lamp {number}","start_price":5,"duration_s":86400,'
            f'"increment":{{"kind":"flat","value":0.5}},"description":"Of brass, with a green shade."}}'
        ).encode()
        yield b"POST /api/v1/items HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def new_item_batch_requests(item_ids: list[str], *, per_request: int = 100) -> Iterator[bytes]:
    """Endless requests of many new items, as of an import."""
    head = b"POST /api/v1/items:batch HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    for number in itertools.count(step=per_request):
        items = [
            f'{{"id":"{item_ids[0]}-{each}","name":"Desk lamp {each}","start_price":5,"duration_s":86400,'
            f'"increment":{{"kind":"flat","value":0.5}},"description":"Of brass, with a green shade."}}'
            for each in range(number, number + per_request)
        ]
        body = f'{{"items":[{",".join(items)}]}}'.encode()
        yield b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


def read_and_bid_requests(item_ids: list[str]) -> Iterator[bytes]:
    """Endless pairs of a read and a bid, as of people who look before they bid. The first is a bid: it opens the
    item."""
    reads, bids = read_requests(item_ids), bid_requests(item_ids, keyed=False)
    while True:
        yield next(bids)
        yield next(reads)


def bid_messages(item_ids: list[str]) -> Iterator[bytes]:
    """Endless frames of the gateway's WebSocket of bids, as :func:`bid_requests`. Their masks are zeros."""
    for number in itertools.count():
        minor = 1 + number // len(item_ids)
        text = (
            f'{{"op":"bid","id":{number},"item_id":"{item_ids[number % len(item_ids)]}",'
            f'"user_id":"user-{number % BIDDERS:04d}","amount":{minor // 100}.{minor % 100:02d}}}'
        ).encode()
        head = b"\x81%c" % (128 | len(text)) if len(text) < 126 else b"\x81\xfe" + len(text).to_bytes(2, "big")
        yield b"%b\0\0\0\0%b" % (head, text)


class _Socket(asyncio.Protocol):
    """A WebSocket with a number of bids in flight: as many new ones are sent as were answered."""

    def __init__(self, tally: Tally, messages: Iterator[bytes], in_flight: int) -> None:
        self._tally = tally
        self._messages = messages
        self._in_flight = in_flight
        self._buffer = b""
        self._is_open = False
        self._sent_at = 0.0
        self.transport: asyncio.Transport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(
            b"GET /api/v1/bids HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )

    def _send(self, count: int) -> None:
        assert self.transport is not None
        self._sent_at = time.perf_counter()
        self.transport.write(b"".join(itertools.islice(self._messages, count)))

    @override
    def data_received(self, data: bytes) -> None:
        data, at = self._buffer + data if self._buffer else data, 0
        if not self._is_open:
            end = data.find(_HEAD_END)
            if end < 0:
                self._buffer = data
                return
            self._is_open, at = True, end + len(_HEAD_END)
            self._send(self._in_flight)
        answered = 0
        while len(data) >= at + 4:
            length, head = data[at + 1], 2
            if length == 126:
                length, head = data[at + 2] << 8 | data[at + 3], 4
            if len(data) < at + head + length:
                break
            status = data.find(b'"status":', at) + 9
            code = data[status : status + 3]
            at += head + length
            answered += 1
            if code == b"201":
                self._tally.accepted += 1
            elif code == b"200":
                self._tally.refused += 1
            else:
                self._tally.failed += 1
        self._buffer = data[at:]
        if answered:
            self._tally.latencies_s.append(time.perf_counter() - self._sent_at)
            self._send(answered)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._tally.failed += 1


async def load(
    port: int,
    requests: Iterator[bytes],
    *,
    connections: int,
    warm_up_s: float,
    measure_s: float,
    cpu_s: Callable[[], float],
    sample_every: int = 16,
    in_flight: int = 0,
) -> tuple[Tally, float, float]:
    """Drive the server, by requests or, with ``in_flight`` bids on each connection, by messages; returns the tally of
    the measured part, its length and the server's CPU time in it, in seconds."""
    loop = asyncio.get_running_loop()
    tally = Tally()

    def connection() -> asyncio.Protocol:
        return _Socket(tally, requests, in_flight) if in_flight else _Connection(tally, requests, sample_every)

    made = [await loop.create_connection(connection, "127.0.0.1", port) for _ in range(connections)]
    await asyncio.sleep(warm_up_s)
    began, cpu_began = time.perf_counter(), cpu_s()
    tally.accepted = tally.refused = tally.failed = 0
    tally.latencies_s.clear()
    await asyncio.sleep(measure_s)
    took, cpu_took = time.perf_counter() - began, cpu_s() - cpu_began
    measured = Tally(tally.accepted, tally.refused, tally.failed, list(tally.latencies_s))
    for transport, _ in made:
        transport.abort()
    await asyncio.sleep(0)
    return measured, took, cpu_took
