"""The feed's client with real broadcasters: cut connections, killed services, NATS down, silence, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import http
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from infrastructure.local.stack import Stack
from shared.feed_client.client import FeedClient
from shared.feed_client.updates import (
    ConnectionChanged,
    ConnectionState,
    FeedClosed,
    FeedDenied,
    ItemUpdate,
    Refused,
    StaleItem,
)
from tests.faults.rig.proxy import FaultyProxy
from tests.integration.feed.feed_world import AuctionHouse, another_feed, until_metric
from tests.integration.feed.reader import PATIENCE_S, Reader
from tests.waiting import eventually

pytestmark = pytest.mark.integration

SOON: Callable[[], float] = lambda: 0.05  # noqa: E731 - a short wait between attempts, instead of a random one.


class TestLive:
    async def test_snapshot_events_and_items_at_run_time(self, feed_stack: Stack, house: AuctionHouse) -> None:
        first, second = await house.open(), await house.open()
        async with Reader.of(FeedClient(feed_stack.urls.broadcast_url, [first], full=True)) as reader:
            await reader.until_seq(first, 0)
            await house.bid(first, 100, 250)
            await reader.until_seq(first, 2)
            assert [(each.kind, str(each.price), each.bids) for each in reader.of_item(first)][1:] == [
                ("bid", "1.00", 1),
                ("bid", "2.50", 1),
            ]
            await reader.feed.follow(second)
            await reader.until_seq(second, 0)
            await reader.feed.unfollow(first)
            await house.bid(first, 300)
            await house.bid(second, 700)
            await reader.until_seq(second, 1)
            assert reader.seqs(first) == [0, 1, 2]
            assert reader.states[-1] is ConnectionState.LIVE
            assert reader.feed.is_current(second)

    async def test_an_item_that_is_not_there(self, feed_stack: Stack, house: AuctionHouse) -> None:
        there = await house.open()
        async with Reader.of(FeedClient(feed_stack.urls.broadcast_url, ["nowhere", there])) as reader:
            await reader.until_seq(there, 0)
            await reader.until(lambda: any(isinstance(each, Refused) for each in reader.updates))
            [refused] = [each for each in reader.updates if isinstance(each, Refused)]
            assert (refused.code, refused.item_id) == ("ITEM_NOT_FOUND", "nowhere")
            assert reader.feed.items == (there,)

    async def test_more_items_than_one_message_holds(self, feed_stack: Stack, house: AuctionHouse) -> None:
        items = [await house.open(f"many-{'x' * 50}-{number}") for number in range(60)]
        async with Reader.of(FeedClient(feed_stack.urls.broadcast_url, items)) as reader:
            await reader.until(lambda: all(reader.of_item(item) for item in items))

    async def test_a_wait_may_be_cancelled_and_begun_anew(self, feed_stack: Stack, house: AuctionHouse) -> None:
        item = await house.open()
        seen: list[int] = []
        async with FeedClient(feed_stack.urls.broadcast_url, [item], full=True) as feed:
            publishing = asyncio.create_task(self._publish(house, item, 50))
            async with asyncio.timeout(PATIENCE_S):
                while not seen or seen[-1] < 50:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.002):
                            update = await anext(feed)
                        if isinstance(update, ItemUpdate):
                            seen.append(update.version[1])
            await publishing
        assert seen == list(range(seen[0], 51))

    async def _publish(self, house: AuctionHouse, item: str, count: int) -> None:
        for number in range(1, count + 1):
            await house.bid(item, 100 * number)

    async def test_leaving_the_block_ends_the_iteration(self, feed_stack: Stack, house: AuctionHouse) -> None:
        item = await house.open()
        async with FeedClient(feed_stack.urls.broadcast_url, [item]) as feed:
            assert isinstance(await anext(feed), ConnectionChanged)
        rest = [update async for update in feed]
        assert len(rest) <= 1


class TestBreaks:
    async def test_nothing_is_missed_over_a_connection_that_is_cut_again_and_again(
        self, feed_stack: Stack, house: AuctionHouse
    ) -> None:
        item = await house.open()
        async with (
            FaultyProxy(feed_stack.ports.broadcast) as proxy,
            Reader.of(FeedClient(f"ws://127.0.0.1:{proxy.port}", [item], full=True, chance=SOON)) as reader,
        ):
            await reader.until_seq(item, 0)
            for number in range(1, 61):
                await house.bid(item, 100 * number)
                if number % 12 == 0:
                    proxy.cut()
                if number % 20 == 0:
                    await reader.until_seq(item, number)
            assert reader.seqs(item) == list(range(61))
            assert all(each.complete for each in reader.of_item(item))
            assert proxy.cuts >= 3
            assert reader.states.count(ConnectionState.OFFLINE) >= 3

    async def test_while_the_service_cannot_be_reached(self, feed_stack: Stack, house: AuctionHouse) -> None:
        item = await house.open()
        async with (
            FaultyProxy(feed_stack.ports.broadcast) as proxy,
            Reader.of(FeedClient(f"ws://127.0.0.1:{proxy.port}", [item], chance=SOON)) as reader,
        ):
            await reader.until_seq(item, 0)
            async with proxy.away():
                await house.bid(item, 100, 200, 300)
                await reader.until(lambda: reader.states.count(ConnectionState.OFFLINE) >= 3)
                assert not reader.feed.is_current(item)
                assert reader.seqs(item) == [0]
            await reader.until_seq(item, 3)
            assert reader.states[-1] is ConnectionState.LIVE

    async def test_a_broadcaster_that_is_killed_and_restarted(self, feed_stack: Stack, house: AuctionHouse) -> None:
        item = await house.open()
        async with (
            another_feed(feed_stack, "feed-client-killed") as port,
            Reader.of(FeedClient(f"ws://127.0.0.1:{port}", [item], full=True, chance=SOON)) as reader,
        ):
            await house.bid(item, 100)
            await reader.until_seq(item, 1)
            feed_stack.kill("feed-client-killed", signal.SIGKILL)
            assert await feed_stack.wait_ended("feed-client-killed")
            await house.bid(item, 200, 300)
            await feed_stack.start_process("feed-client-killed")
            await house.bid(item, 400)
            await reader.until_seq(item, 4)
            assert reader.seqs(item)[-4:] == [1, 2, 3, 4]
            assert all(each.complete for each in reader.of_item(item))

    async def test_a_broadcaster_that_is_drained(self, feed_stack: Stack, house: AuctionHouse) -> None:
        item = await house.open()
        async with (
            another_feed(feed_stack, "feed-client-drained", FEED_DRAIN_S="0.2") as port,
            Reader.of(FeedClient(f"ws://127.0.0.1:{port}", [item], full=True, chance=SOON)) as reader,
        ):
            await reader.until_seq(item, 0)
            await feed_stack.restart("feed-client-drained")
            await house.bid(item, 100)
            await reader.until_seq(item, 1)
            assert ConnectionState.OFFLINE in reader.states

    async def test_silence_is_a_dead_connection(self, feed_stack: Stack, house: AuctionHouse) -> None:
        """The proxy accepts all data and forwards none, like a half-open connection."""
        item = await house.open()
        async with (
            another_feed(feed_stack, "feed-client-silent", FEED_TIME_S="0.3") as port,
            FaultyProxy(port) as proxy,
            Reader.of(FeedClient(f"ws://127.0.0.1:{proxy.port}", [item], chance=SOON)) as reader,
        ):
            await reader.until_seq(item, 0)
            async with proxy.eating_answers():
                await house.bid(item, 100)
                await reader.until(lambda: ConnectionState.OFFLINE in reader.states)
            await reader.until_seq(item, 1)

    async def test_heartbeats_keep_a_quiet_connection(self, feed_stack: Stack, house: AuctionHouse) -> None:
        item = await house.open()
        async with (
            another_feed(feed_stack, "feed-client-quiet", FEED_TIME_S="2") as port,
            Reader.of(FeedClient(f"ws://127.0.0.1:{port}", [item])) as reader,
        ):
            await reader.until_seq(item, 0)
            # Longer than the silence after which it would end, by the service's own clock.
            began_us = reader.feed.server_now_us()
            assert began_us is not None
            ended_us = began_us + 8_000_000

            await eventually(lambda: (reader.feed.server_now_us() or 0) > ended_us, seconds=60)
            assert ConnectionState.OFFLINE not in reader.states


async def test_nats_away_is_stale_and_then_caught_up(feed_stack: Stack) -> None:
    async with contextlib.AsyncExitStack() as stack:
        house = await stack.enter_async_context(AuctionHouse.at(feed_stack.urls.redis_url, feed_stack.urls.nats_url))
        item = await house.open()
        port = await stack.enter_async_context(another_feed(feed_stack, "feed-client-stale", FEED_TIME_S="3"))
        feed = FeedClient(f"ws://127.0.0.1:{port}", [item], full=True, chance=SOON)
        reader = await stack.enter_async_context(Reader.of(feed))
        await house.bid(item, 100)
        await reader.until_seq(item, 1)
        feed_stack.kill("nats", signal.SIGKILL)
        assert await feed_stack.wait_ended("nats")
        try:
            await house.decide(item, 200)
            await reader.until(lambda: reader.states[-1] is ConnectionState.STALE)
            assert not feed.is_current(item)
        finally:
            await feed_stack.start_process("nats")
        await until_metric(feed_stack, "feed_stream_up", 1, port)
        await reader.until(lambda: reader.states[-1] is ConnectionState.LIVE)
        await reader.until_seq(item, 2)
        assert reader.seqs(item)[-2:] == [1, 2]
        told = [each.stale for each in reader.updates if isinstance(each, StaleItem)]
        assert told[:1] == [True]
        assert told[-1:] == [False]
        assert ConnectionState.OFFLINE not in reader.states


# --------------------------------------------------------------------------- what a service says by its own will


@asynccontextmanager
async def scripted(
    visit: Callable[[ServerConnection], object],
    refuse: Callable[[ServerConnection, Request], Response | None] = lambda *_: None,
) -> AsyncIterator[str]:
    """A service that treats each connection as the test says; returns its address."""

    async def handle(connection: ServerConnection) -> None:
        outcome = visit(connection)
        if asyncio.iscoroutine(outcome):
            await outcome

    server: Server
    async with serve(handle, "127.0.0.1", 0, process_request=refuse) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def test_a_final_code_ends_the_iteration_with_an_error() -> None:
    async def visit(connection: ServerConnection) -> None:
        await connection.close(4429, "too many messages")

    async with scripted(visit) as url, FeedClient(url, ["a"], chance=SOON) as feed:
        with pytest.raises(FeedClosed, match="4429 too many messages"):
            async for _ in feed:
                pass
        assert feed.connection is ConnectionState.OFFLINE
        with pytest.raises(StopAsyncIteration):
            await anext(feed)


async def test_an_upgrade_that_is_refused_for_good() -> None:
    def refuse(connection: ServerConnection, _: Request) -> Response:
        return connection.respond(http.HTTPStatus.FORBIDDEN, "ORIGIN_NOT_ALLOWED")

    async with scripted(lambda _: None, refuse) as url, FeedClient(url, ["a"], chance=SOON) as feed:
        with pytest.raises(FeedDenied, match="403 ORIGIN_NOT_ALLOWED"):
            async for _ in feed:
                pass


async def test_a_full_service_is_asked_again_when_it_said(feed_stack: Stack, house: AuctionHouse) -> None:
    asked_s: list[float] = []

    def refuse(connection: ServerConnection, _: Request) -> Response | None:
        asked_s.append(asyncio.get_running_loop().time())
        if len(asked_s) > 1:
            return None
        return Response(503, "Service Unavailable", Headers({"Retry-After": "1", "Content-Length": "0"}), b"")

    async def visit(connection: ServerConnection) -> None:
        await connection.send('{"type":"connected"}')
        await connection.wait_closed()

    async with scripted(visit, refuse) as url, Reader.of(FeedClient(url, ["a"], chance=lambda: 0.0)) as reader:
        await reader.until(lambda: ConnectionState.LIVE in reader.states)
        assert asked_s[1] - asked_s[0] >= 1


@pytest.mark.parametrize("url", ["", "127.0.0.1:8081", "ftp://host", "ws://", "ws://host?x=1"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match="no address of a feed"):
        FeedClient(url)
