"""Who is in the ring, agreed through JetStream: joining, leaving, dying, being cut off, and being stopped."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from shared.clients.nats import NatsLink
from shared.read_cache.membership.clock import now_s
from shared.read_cache.membership.jetstream import JetStreamMembership
from shared.read_cache.membership.view import View
from shared.read_cache.ring import Node
from tests.tcp import relay, serving
from tests.waiting import eventually

pytestmark = pytest.mark.integration

SLOWNESS = 5
LEASE_S = 4.0


class House:
    """Members of one bucket, each with a connection of its own, as processes have."""

    def __init__(self, nats_url: str) -> None:
        self.nats_url = nats_url
        self.bucket = f"cache_{uuid.uuid4().hex[:12]}"
        self.members: dict[str, JetStreamMembership] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.links: list[NatsLink] = []

    def start(self, name: str, *, url: str = "", address: str = "", reads: bool = False) -> JetStreamMembership:
        link = NatsLink(url or self.nats_url, name=f"test {name}")
        self.links.append(link)
        node = None if reads else Node(name, address or f"10.0.0.{len(self.links)}:8001")
        member = JetStreamMembership(link, node=node, lease_s=LEASE_S, bucket=self.bucket)
        self.members[name] = member
        self.tasks[name] = asyncio.create_task(member.run())
        return member

    async def end(self, name: str) -> None:
        task = self.tasks.pop(name)
        task.cancel()
        await asyncio.wait([task])

    async def kill(self, name: str) -> None:
        """End the member without letting it leave."""

        async def nothing() -> None:
            return None

        self.members[name]._leave = nothing  # type: ignore[method-assign]
        await self.end(name)

    async def agreed(self, *names: str, among: tuple[str, ...] = (), seconds: float = 5.0) -> View:
        """Wait until all who run, or those, see exactly these nodes in one epoch."""

        async def views() -> list[View]:
            found = [self.members[name].current() for name in among or self.tasks]
            same = {(view.epoch, tuple(node.name for node in view.ring.nodes)) for view in found if view is not None}
            if None in found or len(same) != 1 or same.pop()[1] != tuple(sorted(names)):
                return []
            return [view for view in found if view is not None]

        # A busy machine is slow: the times that are promised are measured alone.
        return (await eventually(views, seconds=seconds * SLOWNESS))[0]

    async def close(self) -> None:
        for name in list(self.tasks):
            await self.end(name)
        for link in self.links:
            await link.close()


@pytest_asyncio.fixture
async def house(nats_url: str) -> AsyncIterator[House]:
    house = House(nats_url)
    yield house
    await house.close()


async def test_nodes_that_start_at_one_time_agree_on_a_ring_of_all_of_them(house: House) -> None:
    names = [f"n{number}" for number in range(5)]
    for name in names:
        house.start(name)
    view = await house.agreed(*names, seconds=4)
    assert view.epoch >= 1
    assert {house.members[name].current().here for name in names} == set(names)  # type: ignore[union-attr]


async def test_a_ring_that_nothing_changes_keeps_its_epoch(house: House) -> None:
    for name in ("a", "b", "c"):
        house.start(name)
    before = await house.agreed("a", "b", "c")
    view = house.members["a"].current()
    await asyncio.sleep(2 * LEASE_S)
    assert await house.agreed("a", "b", "c") == before
    assert house.members["a"].current() is view
    assert [member.lapses for member in house.members.values()] == [0, 0, 0]


async def test_from_three_to_five(house: House) -> None:
    for name in ("a", "b", "c"):
        house.start(name)
    before = await house.agreed("a", "b", "c")
    house.start("d")
    house.start("e")
    after = await house.agreed("a", "b", "c", "d", "e", seconds=4)
    assert after.epoch > before.epoch


async def test_a_node_that_leaves_is_out_at_once(house: House) -> None:
    for name in ("a", "b", "c"):
        house.start(name)
    await house.agreed("a", "b", "c")
    await house.end("b")
    await house.agreed("a", "c", seconds=LEASE_S / 2)
    assert house.members["b"].current() is None


async def test_a_node_that_dies_is_out_after_its_lease(house: House) -> None:
    for name in ("a", "b", "c"):
        house.start(name)
    before = await house.agreed("a", "b", "c")
    loop = asyncio.get_running_loop()
    await house.kill("b")
    died_s = loop.time()
    after = await house.agreed("a", "c", seconds=LEASE_S + 2)
    assert loop.time() - died_s > LEASE_S / 3
    assert after.epoch > before.epoch


async def test_a_reader_sees_the_ring_and_is_not_in_it(house: House) -> None:
    house.start("a")
    house.start("reader", reads=True)
    view = await house.agreed("a")
    assert house.members["reader"].current() is not None
    assert (await house.members["reader"].newest() or view).here is None


async def test_a_reader_before_the_first_node_sees_an_empty_ring(house: House) -> None:
    reader = house.start("reader", reads=True)

    async def view() -> View | None:
        return reader.current()

    assert len((await eventually(view, seconds=60)).ring) == 0


async def test_the_newest_view_has_every_node_that_joined_before_the_question(house: House) -> None:
    """Whoever has changed something asks it for whom to tell."""
    house.start("a")
    await house.agreed("a")
    reader = house.start("reader", reads=True)
    await house.agreed("a")
    reader._wake.clear()
    house.tasks["reader"].cancel()
    await asyncio.wait([house.tasks.pop("reader")])
    reader._reliance.renew(View(1, reader._ring, None), now_s() + 60)
    house.start("b")
    await house.agreed("a", "b")
    assert [node.name for node in reader.current().ring.nodes] == ["a"]  # type: ignore[union-attr]
    newest = await reader.newest()
    assert newest is not None
    assert [node.name for node in newest.ring.nodes] == ["a", "b"]


async def test_a_restarted_node_takes_its_place_with_its_new_address(house: House) -> None:
    house.start("a")
    house.start("b", address="10.0.0.7:8001")
    await house.agreed("a", "b")
    await house.kill("b")
    house.start("b", address="10.0.0.8:8001")

    async def moved() -> bool:
        view = house.members["a"].current()
        node = view.ring.node("b") if view is not None else None
        return node is not None and node.address == "10.0.0.8:8001"

    await eventually(moved, seconds=LEASE_S * SLOWNESS)


async def test_of_two_processes_under_one_name_the_later_one_counts(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.start("a")
    house.start("b", address="10.0.0.7:8001")
    await house.agreed("a", "b")
    older, task = house.members["b"], house.tasks["b"]
    house.tasks["older b"], house.members["older b"] = task, older
    newer = house.start("b", address="10.0.0.8:8001")
    await house.agreed("a", "b", among=("a", "b"))

    async def gave_up() -> bool:
        return older.current() is None

    await eventually(gave_up, seconds=LEASE_S * SLOWNESS)
    await asyncio.sleep(LEASE_S)
    assert older.current() is None
    assert newer.current() is not None
    assert newer.lapses == 0
    assert "another process has joined as b" in caplog.text
    await house.end("b")
    await house.agreed("a", "b", among=("a", "older b"), seconds=LEASE_S + 3)


async def test_a_node_that_is_cut_off_from_nats_serves_without_peers_until_it_is_agreed_again(house: House) -> None:
    open_now = asyncio.Event()
    open_now.set()

    async def treat(way: str, data: bytes) -> bytes:
        await open_now.wait()
        return data

    port = int(house.nats_url.rpartition(":")[2])

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay(reader, writer, port, treat)

    async with serving(pass_on) as through:
        for name in ("a", "b"):
            house.start(name)
        lost = house.start("c", url=f"nats://127.0.0.1:{through}")
        before = await house.agreed("a", "b", "c")
        open_now.clear()
        loop = asyncio.get_running_loop()
        cut_s = loop.time()
        await house.agreed("a", "b", among=("a", "b"), seconds=LEASE_S + 3)
        # It gave up before the others took it out, by its own clock.
        assert lost.current() is None
        assert loop.time() - cut_s >= LEASE_S / 2
        assert lost.lapses == 1
        open_now.set()
        after = await house.agreed("a", "b", "c", seconds=15)
        assert after.epoch > before.epoch
        await house.close()


async def test_a_process_that_was_stopped_knows_it_at_its_first_question(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has run since: no timer and no task of this process has noticed the time."""
    member = house.start("a")
    await house.agreed("a")
    slept_s = LEASE_S + 0.001
    clock: Callable[[], float] = now_s
    monkeypatch.setattr("shared.read_cache.membership.view.now_s", lambda: clock() + slept_s)
    assert member.current() is None
    assert member.lapses == 1


async def test_an_unreadable_ring_is_said_and_nobody_has_a_view(house: House, caplog: pytest.LogCaptureFixture) -> None:
    member = house.start("a")
    await house.agreed("a")
    _, _, rings = await member._open()
    await rings.put("ring", b'{"members": [{"name": "no name", "address": "x", "weight": 1, "life": ""}]}')

    async def lapsed() -> bool:
        return member.current() is None

    await eventually(lapsed, seconds=LEASE_S * SLOWNESS)
    assert "the key ring of the bucket" in caplog.text
    await rings.put("ring", b'{"members": []}')
    await house.agreed("a", seconds=LEASE_S)


@pytest.mark.parametrize("way", ["delete", "purge"])
async def test_a_ring_that_somebody_deleted_is_agreed_anew(house: House, way: str) -> None:
    """The key is gone, and its revisions go on."""
    for name in ("a", "b"):
        house.start(name)
    before = await house.agreed("a", "b")
    _, _, rings = await house.members["a"]._open()
    await (rings.delete("ring") if way == "delete" else rings.purge("ring"))

    async def is_newer() -> bool:
        return (await house.agreed("a", "b", seconds=LEASE_S)).epoch > before.epoch

    await eventually(is_newer, seconds=LEASE_S * SLOWNESS)
    assert [member.lapses for member in house.members.values()] == [0, 0]


async def test_without_nats_there_is_no_view_and_the_end_is_quick(caplog: pytest.LogCaptureFixture) -> None:
    link = NatsLink("nats://127.0.0.1:1", name="test")
    member = JetStreamMembership(link, node=Node("a", "10.0.0.1:8001"), lease_s=LEASE_S, bucket="nowhere")
    task = asyncio.create_task(member.run())

    async def said() -> bool:
        return "cannot agree on the cache's ring" in caplog.text

    with caplog.at_level(logging.WARNING):
        await eventually(said, seconds=60)
    assert member.current() is None
    assert await member.newest() is None
    task.cancel()
    async with asyncio.timeout(SLOWNESS):
        await asyncio.wait([task])
    await link.close()


async def test_all_leases_gone_at_once_does_not_empty_the_ring(house: House) -> None:
    """After an outage of NATS all have run out; nobody throws the others out for that."""
    for name in ("a", "b", "c"):
        house.start(name)
    before = await house.agreed("a", "b", "c")
    client = await house.links[0].connected()
    await client.jetstream().purge_stream(f"KV_{house.bucket}_leases")
    await asyncio.sleep(LEASE_S)
    assert await house.agreed("a", "b", "c") == before


async def test_buckets_that_vanish_are_made_again(house: House) -> None:
    async with AsyncExitStack():
        for name in ("a", "b"):
            house.start(name)
        await house.agreed("a", "b")
        client = await house.links[0].connected()
        for suffix in ("leases", "ring"):
            await client.jetstream().delete_stream(f"KV_{house.bucket}_{suffix}")
        await asyncio.sleep(LEASE_S / 2)
        await house.agreed("a", "b", seconds=10)
