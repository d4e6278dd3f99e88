"""What one node answers another, message by message, and where it may listen."""

from __future__ import annotations

import asyncio
import socket

import grpc
import pytest

from shared.read_cache.errors import PeerFailed
from shared.read_cache.peers import cache_pb2 as pb
from shared.read_cache.peers.link import Link
from shared.read_cache.peers.wire import SERVICE, checked_address
from shared.read_cache.remote import Heard
from shared.read_cache.ring import Node
from tests.integration.read_cache.cluster_world import cluster
from tests.waiting import eventually

pytestmark = pytest.mark.integration


class Caller:
    """A client that speaks the protocol without our library."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address)

    async def get(self, ask: pb.Ask) -> pb.Answer:
        call = self.channel.unary_unary(
            f"/{SERVICE}/Get", request_serializer=pb.Ask.SerializeToString, response_deserializer=pb.Answer.FromString
        )
        answer: pb.Answer = await call(ask, timeout=30)
        return answer

    async def status(self) -> pb.StatusReply:
        call = self.channel.unary_unary(
            f"/{SERVICE}/Status",
            request_serializer=pb.StatusRequest.SerializeToString,
            response_deserializer=pb.StatusReply.FromString,
        )
        reply: pb.StatusReply = await call(pb.StatusRequest(), timeout=30)
        return reply


async def test_a_caller_without_a_ring_is_answered_by_any_node() -> None:
    async with cluster("a", "b") as world:
        caller = Caller(world.nodes["a"].address)
        (foreign,) = world.owned_by("b")
        world.table.rows["none"] = None
        answer = await caller.get(pb.Ask(group="items", first=7, keys=[foreign, "none", "no key\n", "x" * 600]))
        by_number = dict(zip(answer.numbers, zip(answer.states, answer.values, strict=True), strict=True))
        assert by_number == {
            7: (pb.FOUND, b"a row"),
            8: (pb.ABSENT, b""),
            9: (pb.FAILED, b""),
            10: (pb.FAILED, b""),
        }
        assert world.caches["b"].stats.served == 1
        answer = await caller.get(pb.Ask(group="nothing", first=1, keys=["a"]))
        assert list(answer.states) == [pb.UNKNOWN_GROUP]
        answer = await caller.get(pb.Ask(group="items", first=1, keys=["cold"], kept_only=True))
        assert list(answer.states) == [pb.NOT_KEPT]
        await caller.channel.close()


async def test_a_node_takes_over_from_one_that_has_heard_as_much_and_from_no_other() -> None:
    async with cluster("a", "b") as world:
        (key,) = world.owned_by("a")
        assert await world.caches["a"]["items"].get(key) == b"a row"
        heard = Heard(4, 2, 1_795_000_000_000_000)
        world.caches["a"].hear(lambda: heard, needed=lambda: heard)
        needed = Heard(5, 2, 1_795_000_000_000_000)
        world.caches["b"].hear(lambda: Heard(9, 2), needed=lambda: needed)
        assert not await world.caches["b"]["items"].take_over(key, "a")
        heard = Heard(5, 2, 1_795_000_000_000_001)
        assert not await world.caches["b"]["items"].take_over(key, "a"), "of another stream"
        heard = needed
        assert await world.caches["b"]["items"].take_over(key, "a")
        assert world.table.asked == [key]


async def test_a_link_that_is_closed_ends_what_waits_for_a_silent_peer_as_a_failure() -> None:
    """The library cancels the call from within; whoever waits has not been cancelled."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        node = Node("b", f"127.0.0.1:{silent.getsockname()[1]}")
        for closes in (True, False):
            link = Link(node, timeout_s=60)
            asking = [
                asyncio.create_task(link.keys_for(node, 1, 1, "items", 10)),
                asyncio.create_task(link.forget("items", ["a"])),
            ]
            await asyncio.sleep(0.2)
            if closes:
                await link.close()
            else:
                for task in asking:
                    task.cancel()
            done, _ = await asyncio.wait(asking, timeout=30)
            assert done == set(asking)
            for task in asking:
                with pytest.raises(PeerFailed if closes else asyncio.CancelledError):
                    await task
            await link.close()


async def test_whose_keys_are_kept_is_told_under_the_same_ring_only() -> None:
    async with cluster("a", "b") as world:
        keys = world.owned_by("a", 3)
        await world.caches["a"]["items"].get_many(keys)
        cluster_of_b = world.caches["b"].cluster
        assert cluster_of_b is not None
        view = cluster_of_b.view()
        assert view is not None
        link, ring = world.link(world.caches["b"], "a"), view.ring.fingerprint
        assert sorted(await link.keys_for(world.nodes["a"], view.epoch, ring, "items", 10)) == sorted(keys)
        assert await link.keys_for(world.nodes["b"], view.epoch, ring, "items", 10) == []
        assert await link.keys_for(world.nodes["a"], view.epoch, ring, "nothing", 10) == []
        for epoch, fingerprint in ((view.epoch + 1, ring), (view.epoch, ring + 1)):
            with pytest.raises(PeerFailed, match="means another ring") as caught:
                await link.keys_for(world.nodes["a"], epoch, fingerprint, "items", 10)
            assert caught.value.other_ring


async def test_a_forwarded_question_is_never_forwarded_again() -> None:
    async with cluster("a", "b") as world:
        caller = Caller(world.nodes["a"].address)
        (foreign,) = world.owned_by("b")
        answer = await caller.get(pb.Ask(group="items", first=1, keys=[foreign], forwarded=True))
        assert list(answer.states) == [pb.FOUND]
        assert world.caches["b"].stats.served == 0
        assert world.caches["a"].stats.loads == 1
        await caller.channel.close()


async def test_a_question_under_another_epoch_is_not_answered() -> None:
    async with cluster("a", "b") as world:
        caller = Caller(world.nodes["a"].address)
        view = world.caches["a"].cluster.view()  # type: ignore[union-attr]
        assert view is not None
        for epoch, fingerprint in ((2, view.ring.fingerprint), (1, view.ring.fingerprint ^ 1)):
            ring = pb.RingId(epoch=epoch, fingerprint=fingerprint)
            answer = await caller.get(pb.Ask(ring=ring, group="items", first=1, keys=["a", "b"]))
            assert list(answer.states) == [pb.OTHER_RING] * 2
            assert (answer.ring.epoch, answer.ring.fingerprint) == (1, view.ring.fingerprint)
        assert world.table.asked == []
        await caller.channel.close()


async def test_status() -> None:
    async with cluster("a", "b") as world:
        await world.caches["a"]["items"].get(world.owned_by("a")[0])
        caller = Caller(world.nodes["a"].address)
        status = await caller.status()
        assert (status.name, list(status.nodes), status.entries) == ("a", ["a", "b"], 1)
        assert status.counts["loads"] == 1
        assert 0 < status.bytes_used < status.bytes_max == 64 * 1024**2
        await caller.channel.close()


async def test_messages_over_the_limit_are_refused() -> None:
    async with cluster("a", "b") as world:
        caller = Caller(world.nodes["a"].address)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.get(pb.Ask(group="items", first=1, keys=["x" * 5 * 1024**2]))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        answer = await caller.get(pb.Ask(group="items", first=1, keys=["a"] * 1_001))
        assert set(answer.states) == {pb.BUSY}
        await caller.channel.close()


async def test_an_address_that_is_taken() -> None:
    async with cluster("a", "b") as world:
        with pytest.raises(OSError, match=f"cannot listen on {world.nodes['a'].address}"):
            await world.start("a")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:8001",
        "10.1.2.3:8001",
        "[::1]:0",
        "192.168.0.4:1",
        "172.16.0.1:9",
        "[::ffff:127.0.0.1]:8001",
        "[fd00::7]:8001",
    ],
)
def test_addresses_that_may_be_listened_on(address: str) -> None:
    assert checked_address(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:8001",
        "0.1.2.3:8001",
        "[::]:8001",
        "[::ffff:0.0.0.0]:8001",
        "[::ffff:8.8.8.8]:8001",
        "8.8.8.8:8001",
        "example.com:8001",
        "127.0.0.1",
        "a:",
    ],
)
def test_addresses_that_may_not(address: str) -> None:
    with pytest.raises(ValueError, match="cache node"):
        checked_address(address)


async def test_what_leaves_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is logged as an error, and no task is left, when a cluster ends while it is asked."""
    async with cluster("a", "b") as world:
        world.table.takes_s = 0.1
        gets = [asyncio.create_task(world.caches["a"]["items"].get(key)) for key in world.owned_by("b", 20)]
        await asyncio.sleep(0.02)
    await asyncio.gather(*gets, return_exceptions=True)

    async def alone() -> bool:
        return len(asyncio.all_tasks()) == 1

    await eventually(alone, seconds=60)
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []
