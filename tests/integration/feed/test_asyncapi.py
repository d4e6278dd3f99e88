"""The frames of a running broadcaster, of every kind, are as docs/asyncapi.yaml describes them."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2 as httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect

from infrastructure.local.stack import Stack
from shared import feed_tokens
from tests.documents.asyncapi import AsyncApi
from tests.integration.feed.feed_world import ws_url
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration

Json = dict[str, Any]

PATIENCE_S = 60.0
SECRET = "a secret that is long enough for HS256"
OPERATIONS = {"subscribe", "unsubscribe", "ping", "authenticate", "askStanding"}


class Seller:
    """Sells, bids and operates over HTTP, on a platform with all features on and short intervals."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def call(self, path: str, **content: Any) -> Json:
        answer = await self._http.post(f"/api/v1/items{path}", json=content)
        assert answer.status_code in (200, 201), answer.text
        body: Json = answer.json()
        return body

    async def open(self, **terms: Any) -> str:
        body = await self.call("", name="A vase", seller_id="sam", **terms)
        return str(body["id"])

    async def bid_at_most(self, item_id: str, amount: float) -> None:
        """Place a bid, which may be refused."""
        await self.call(f"/{item_id}/bid", user_id="bob", amount=amount)

    async def bid(self, item_id: str, amount: float, user_id: str = "ann") -> str:
        body = await self.call(f"/{item_id}/bid", user_id=user_id, amount=amount)
        assert body["success"], body
        return str(body["bid_id"])


@pytest_asyncio.fixture
async def world(start_stack: StackFactory) -> Stack:
    quick = {"FEED_TIME_S": "0.3", "FEED_VIEWERS_S": "0.2", "FEED_RATE_MAX": "5", "FEED_HEARTBEAT_S": "0.5"}
    return await start_stack(env={"FEED_TOKEN_SECRET": SECRET, "OPEN_CATALOGUE": "true", **quick})


@pytest_asyncio.fixture
async def seller(world: Stack) -> AsyncIterator[Seller]:
    async with httpx.AsyncClient(base_url=world.urls.gateway_url, timeout=PATIENCE_S) as http:
        yield Seller(http)


class Recorder:
    """Keeps every frame, and fails at the first one that is not as described."""

    def __init__(self, api: AsyncApi) -> None:
        self._api = api
        self.frames: list[tuple[str, Json]] = []

    @property
    def kinds(self) -> set[str]:
        return {kind for kind, _ in self.frames}

    def note(self, text: str) -> None:
        frame: Json = json.loads(text)
        names = self._api.names_of(frame)
        assert len(names) == 1, f"{text}\n{self._api.why_not(frame)}"
        self.frames.append((names[0], frame))

    async def read(self, viewer: ClientConnection) -> None:
        async for text in viewer:
            assert isinstance(text, str)
            self.note(text)

    async def until(self, holds: Callable[[], bool]) -> None:
        await eventually(holds, seconds=PATIENCE_S)

    async def until_seq(self, item_id: str, seq: int) -> None:
        def seen() -> bool:
            return any(
                f.get("item_id") == item_id and f.get("seq", -1) >= seq and "status" in f for _, f in self.frames
            )

        await self.until(seen)


@asynccontextmanager
async def recording(recorder: Recorder, url: str) -> AsyncIterator[ClientConnection]:
    async with connect(url) as viewer:
        reading = asyncio.create_task(recorder.read(viewer))
        try:
            yield viewer
        finally:
            reading.cancel()
            await asyncio.wait([reading])
            if not reading.cancelled():
                reading.result()


def token(user_id: str, lifetime_s: int = 600) -> str:
    return feed_tokens.mint(SECRET, feed_tokens.Identity(user_id, int(time.time()) + lifetime_s, sees_maximum=True))


async def say(viewer: ClientConnection, **operation: Any) -> None:
    await viewer.send(json.dumps(operation))


async def test_every_kind_of_frame_is_as_described(world: Stack, seller: Seller) -> None:
    api = AsyncApi()
    recorder = Recorder(api)
    async with recording(recorder, ws_url(world, "/ws")) as viewer:
        await what_is_asked_for(viewer, recorder, seller)
        item = await the_life_of_an_item(viewer, recorder, seller)
        await too_many_bids(viewer, recorder, seller)
        async with recording(recorder, ws_url(world, f"/ws/items/{item}?since=1:1&feed=full")):
            await recorder.until(lambda: "marker" in recorder.kinds)
        await nats_away(world, recorder)
    assert set(api.messages) - recorder.kinds == OPERATIONS


async def what_is_asked_for(viewer: ClientConnection, recorder: Recorder, seller: Seller) -> None:
    quiet = await seller.open()
    await say(viewer, op="subscribe", items=[quiet, "not-yet", "no id"], since={quiet: "9:9"})
    await say(viewer, op="ping")
    await say(viewer, op="standing", items=[quiet])
    await say(viewer, op="authenticate", token="none")
    await say(viewer, op="authenticate", token=token("ann"))
    await say(viewer, op="dance")
    wanted = {"connected", "snapshot", "unknown", "pong", "error", "authenticated", "standing", "heartbeat", "viewers"}
    await recorder.until(lambda: wanted <= recorder.kinds)
    await say(viewer, op="unsubscribe", items=[quiet])
    await recorder.until(lambda: "unsubscribed" in recorder.kinds)
    codes = {frame["code"] for kind, frame in recorder.frames if kind == "error"}
    assert codes == {"ITEM_ID_INVALID", "NOT_AUTHENTICATED", "TOKEN_INVALID", "OPERATION_INVALID"}


async def the_life_of_an_item(viewer: ClientConnection, recorder: Recorder, seller: Seller) -> str:
    """One item is opened, bid on, extended, paused, resumed, has a bid struck and is bought; another is withdrawn.
    Returns the first one."""
    start_time = (datetime.now(UTC) + timedelta(seconds=8)).isoformat()
    item = await seller.open(
        start_time=start_time,
        duration_s=3_600,
        soft_close={"trigger_s": 7_200, "extend_s": 10_800, "max_count": 1},
        increment={"kind": "ladder"},
        reserve_price=40,
        buy_now_price=50,
    )
    withdrawn = await seller.open(increment={"kind": "percent", "value": 2.5})
    await say(viewer, op="subscribe", items=[item, withdrawn], feed="full")
    await recorder.until(lambda: "opened" in recorder.kinds)
    bid_id = await seller.bid(item, 10)
    await recorder.until(lambda: {"bid", "extended"} <= recorder.kinds)
    await seller.call(f"/{item}/pause", reason="a question came up")
    await recorder.until(lambda: "paused" in recorder.kinds)
    await seller.call(f"/{item}/resume", reason="it is answered")
    await recorder.until(lambda: "resumed" in recorder.kinds)
    await seller.call(f"/{item}/extend", reason="a holiday", by_s=60)
    await recorder.until(
        lambda: any(frame.get("reason") == "a holiday" for kind, frame in recorder.frames if kind == "extended")
    )
    await seller.call(f"/{item}/bids/{bid_id}/void", reason="entered by mistake")
    await recorder.until(lambda: "voided" in recorder.kinds)
    await seller.bid(item, 50)
    await recorder.until(lambda: "closed" in recorder.kinds)
    await seller.call(f"/{withdrawn}/cancel", reason="it broke")
    await recorder.until(lambda: "cancelled" in recorder.kinds)
    return item


async def too_many_bids(viewer: ClientConnection, recorder: Recorder, seller: Seller) -> None:
    busy = await seller.open()
    await say(viewer, op="subscribe", items=[busy])
    await recorder.until_seq(busy, 0)
    # Repeat until it happens: on a slow machine bids may be slower than the feed's rate.
    number = 0
    async with asyncio.timeout(PATIENCE_S):
        while "state" not in recorder.kinds:
            number += 10
            await asyncio.gather(*(seller.bid_at_most(busy, number + each) for each in range(10)))
    await recorder.until_seq(busy, 1)


async def nats_away(world: Stack, recorder: Recorder) -> None:
    def told(stale: bool) -> bool:
        return any(kind == "stale" and frame["stale"] is stale for kind, frame in recorder.frames)

    world.kill("nats", signal.SIGSTOP)
    try:
        await recorder.until(lambda: told(True))
        await recorder.until(lambda: any("stale" in frame for kind, frame in recorder.frames if kind == "heartbeat"))
    finally:
        world.kill("nats", signal.SIGCONT)
    await recorder.until(lambda: told(False))


async def test_an_event_stream_says_the_same(world: Stack, seller: Seller) -> None:
    recorder = Recorder(AsyncApi())
    item = await seller.open()
    wanted = {"connected", "snapshot", "bid", "heartbeat", "authenticated", "standing"}
    async with (
        httpx.AsyncClient(timeout=PATIENCE_S) as http,
        http.stream("GET", f"{world.urls.broadcast_url}/sse/items/{item}?token={token('ann')}") as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE_S):
            async for line in answer.aiter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                    continue
                if "data" in fields:
                    check_event(recorder, fields)
                    if recorder.frames[-1][0] == "snapshot":
                        await seller.bid(item, 10)
                if wanted <= recorder.kinds:
                    break
                fields = {}


def check_event(recorder: Recorder, fields: dict[str, str]) -> None:
    recorder.note(fields["data"])
    kind, frame = recorder.frames[-1]
    assert fields["event"] == frame["type"]
    assert fields.get("id") == (f"{frame['epoch']}:{frame['seq']}" if kind in ("snapshot", "bid") else None)
