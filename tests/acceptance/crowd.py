"""Bidders over HTTP and viewers over WebSockets, who remember all answers and frames."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import aiohttp
import httpx2 as httpx
import websockets
from websockets.asyncio.client import connect

from load_tests.proof.checks import AcceptedBid, ClientView
from tests.crowds.http_clients import CrowdClient, crowd_client
from tests.waiting import eventually


def minor(amount: Decimal | int) -> int:
    """Cents of an amount in an answer or a frame."""
    cents = Decimal(amount) * 100
    assert cents == int(cents)
    return int(cents)


@dataclass
class Ledger:
    """The answers to all bidders, per item. An unknown outcome is kept with its bid id until it is resolved."""

    accepted: dict[str, list[AcceptedBid]] = field(default_factory=lambda: defaultdict(list))
    refused: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    failures: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    unknown: dict[str, list[tuple[str, dict[str, Any]]]] = field(default_factory=lambda: defaultdict(list))
    minimum: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: 1))
    placed: int = 0
    _waits: list[tuple[int, asyncio.Event]] = field(default_factory=list)

    def count(self) -> None:
        """Count a bid that is sent."""
        self.placed += 1
        for placed, event in self._waits:
            if self.placed >= placed:
                event.set()

    async def reached(self, placed: int) -> None:
        """Wait until so many bids were sent."""
        event = asyncio.Event()
        self._waits.append((placed, event))
        if self.placed < placed:
            await event.wait()

    def note(self, item_id: str, user_id: str, answer: dict[str, Any]) -> None:
        """Note one answer, 201 or 200."""
        self.minimum[item_id] = max(self.minimum[item_id], minor(answer["min_next_bid"]))
        if answer["success"]:
            bid = AcceptedBid(answer["seq"], answer["bid_id"], user_id, minor(answer["your_bid"]))
            self.accepted[item_id].append(bid)
        else:
            self.refused[item_id] += 1

    def views(self) -> dict[str, ClientView]:
        """The answers in the form in which :mod:`load_tests.proof.verify` compares them with the stores."""
        items = {*self.accepted, *self.refused, *self.failures, *self.unknown}
        return {
            item: ClientView(
                accepted=self.accepted[item],
                refused=self.refused[item],
                failures=self.failures[item],
                unresolved=tuple(bid_id for bid_id, _ in self.unknown[item]),
            )
            for item in items
        }


async def place(http: CrowdClient, ledger: Ledger, item_id: str, user_id: str, bid_id: str, cents: int) -> None:
    """Place one bid and note its outcome."""
    ledger.count()
    body = {"user_id": user_id, "amount": cents / 100, "bid_id": bid_id}
    text = json.dumps(body | {"amount": 0}).replace('"amount": 0', f'"amount": {cents // 100}.{cents % 100:02d}')
    try:
        answer = await http.post(f"/api/v1/items/{item_id}/bid", text.encode())
    except aiohttp.ClientConnectorError:
        ledger.unknown[item_id].append((bid_id, {"user_id": user_id, "text": text}))
        await asyncio.sleep(0.02)
        return
    except (aiohttp.ClientError, TimeoutError):
        ledger.unknown[item_id].append((bid_id, {"user_id": user_id, "text": text}))
        return
    if answer.status_code in (200, 201):
        ledger.note(item_id, user_id, answer.json(parse_float=Decimal))
    elif answer.status_code == 503 and answer.json()["code"] == "OUTCOME_UNKNOWN":
        ledger.unknown[item_id].append((bid_id, {"user_id": user_id, "text": text}))
    elif answer.status_code != 503:
        ledger.failures[item_id] += 1


async def resolve(http: httpx.AsyncClient, ledger: Ledger) -> int:
    """Repeat every bid of unknown outcome with its key, as a client would; returns how many there were."""
    count = 0
    for item_id, bids in list(ledger.unknown.items()):
        for _, sent in bids:
            answer = await http.post(f"/api/v1/items/{item_id}/bid", content=sent["text"].encode())
            assert answer.status_code in (200, 201), answer.text
            ledger.note(item_id, sent["user_id"], json.loads(answer.text, parse_float=Decimal))
            count += 1
        bids.clear()
    return count


async def bid_crowd(
    base_url: str, ledger: Ledger, items: list[str], *, bids: int, bidders: int, seed: int, tag: str
) -> None:
    """``bidders`` bidders at once place ``bids`` bids in all on the items, each a little above the last price seen."""
    numbers = iter(range(bids))

    async def bidder(http: CrowdClient, user_id: str, chance: random.Random) -> None:
        for number in numbers:
            item_id = items[number % len(items)]
            cents = ledger.minimum[item_id] + chance.randrange(200)
            await place(http, ledger, item_id, user_id, f"{tag}-{number}", cents)

    async with crowd_client(base_url) as http, asyncio.TaskGroup() as group:
        for number in range(bidders):
            group.create_task(bidder(http, f"user-{number}", random.Random(seed + number)))


class Viewer:
    """One WebSocket on one item; checks that no frame goes back."""

    def __init__(self, feed_url: str, item_id: str) -> None:
        self._url = f"{feed_url}/ws/items/{item_id}"
        self.frames: list[dict[str, Any]] = []
        self.version = (-1, -1)
        self.price = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect; returns after the snapshot."""
        socket = await connect(self._url, open_timeout=20, max_queue=None)
        first = json.loads(await socket.recv())
        assert first["type"] == "connected", first
        self._take(json.loads(await socket.recv(), parse_float=Decimal))
        assert self.frames[0]["type"] == "snapshot", self.frames[0]
        self._task = asyncio.create_task(self._read(socket))

    async def _read(self, socket: Any) -> None:
        try:
            async for text in socket:
                self._take(json.loads(text, parse_float=Decimal))
        except websockets.ConnectionClosed:
            return
        finally:
            await socket.close()

    def _take(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)
        if "seq" not in frame:
            return
        version = (frame["epoch"], frame["seq"])
        assert version >= self.version, f"the feed went back from {self.version} to {version}"
        self.version = version
        self.price = minor(frame["current_bid"])

    async def reached(self, seq: int, *, within_s: float = 20) -> None:
        """Wait until the viewer was shown the state of ``seq``."""

        def shown() -> bool:
            assert self._task is not None
            assert self.version[1] >= seq or not self._task.done(), "the feed closed the connection"
            return self.version[1] >= seq

        await eventually(shown, f"seq {seq}", seconds=within_s)

    async def stop(self) -> None:
        """Close, and raise the reader's error if there is one."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if not self._task.cancelled():
            self._task.result()
