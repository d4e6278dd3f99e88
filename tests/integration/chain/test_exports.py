"""The exports of closed items, on a real PostgreSQL, to folders and to a bucket."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import resource
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import httpx2 as httpx
import pytest
import pytest_asyncio

from archival_worker.chain.chainer import Chainer
from archival_worker.chain.export_file import verify
from archival_worker.chain.exports import Exporter, ExportOptions
from archival_worker.chain.sinks import Digest, DirectorySink, Sink, open_sink
from archival_worker.errors import ExportFailed
from infrastructure.local.servers.ports import free_ports
from infrastructure.local.stack import Stack
from tests.integration.chain.chain_world import World, auction, chain_world
from tests.programs import bidding
from tests.stack import StackFactory
from tests.unit.archival_worker.events import voided
from tests.waiting import eventually

pytestmark = pytest.mark.integration

QUICK = ExportOptions(pause_first_s=0.001, pause_most_s=0.001, stuck_tries=3, count_every_s=0)


@pytest_asyncio.fixture
async def world(servers: Stack) -> AsyncIterator[World]:
    async with chain_world(servers) as world:
        yield world


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix == ".gz"]


async def test_a_closed_item_is_exported_once_and_confirmed(world: World, tmp_path: Path) -> None:
    exporter = Exporter(world.pool, DirectorySink(tmp_path), world.metrics, ExportOptions(page_rows=2))
    await world.store(*auction("lot-1", 5)[:-1])
    await world.chain()
    assert not await exporter.once(), "it is still open"
    await world.store(auction("lot-1", 5)[-1])
    await world.chain()
    assert await exporter.once()
    assert not await exporter.once()
    row = await world.export_row()
    found = verify(tmp_path / row["object_key"]).told()
    assert (row["state"], row["tries"], row["confirmed_at"] is not None) == ("confirmed", 1, True)
    assert (found["events"], found["head"]) == (7, row["head"].hex())
    assert row["bytes"] == (tmp_path / row["object_key"]).stat().st_size
    world.chainer.offer(["lot-1"])
    await world.chain()
    assert await world.value("SELECT count(*) FROM exports") == 1


async def test_a_void_after_the_close_is_exported_anew(world: World, tmp_path: Path) -> None:
    exporter = Exporter(world.pool, DirectorySink(tmp_path), world.metrics)
    await world.store(*auction("lot-1", 2))
    await world.chain()
    assert await exporter.once()
    await world.store(voided("lot-1", 4, voids=2, status="unsold"))
    await world.chain()
    assert await exporter.once()
    keys = [row["object_key"] for row in await world.pool.fetch("SELECT object_key FROM exports ORDER BY seq")]
    assert [key.rpartition("/")[2] for key in keys] == ["1-3.jsonl.gz", "1-4.jsonl.gz"]
    assert all((tmp_path / key).exists() for key in keys)


async def test_an_export_that_never_got_through_is_superseded(world: World) -> None:
    await world.store(*auction("lot-1", 2))
    await world.chain()
    await world.store(voided("lot-1", 4, voids=2, status="unsold"))
    await world.chain()
    rows = await world.pool.fetch("SELECT seq, state FROM exports ORDER BY seq")
    assert [tuple(row) for row in rows] == [(3, "superseded"), (4, "due")]


async def test_a_chain_that_ends_otherwise_than_it_did_is_not_exported(world: World, tmp_path: Path) -> None:
    """The log is whole and fits itself: somebody wrote it anew from the first event on, hashes and all."""
    exporter = Exporter(world.pool, DirectorySink(tmp_path), world.metrics, QUICK)
    await world.store(*auction("lot-1", 2))
    await world.chain()
    due = await world.export_row()
    await world.tamper("UPDATE bids SET user_id = 'eve' WHERE seq = 2")
    for table in ("event_hashes", "chains", "exports"):
        await world.pool.execute(f"DELETE FROM {table}")
    # Due with the head that it had, as a worker had claimed it before.
    world.chainer.offer(["lot-1"])
    await world.chain()
    await world.pool.execute("UPDATE exports SET head = $1", due["head"])
    assert (await world.audit()).is_sound
    assert await exporter.once()
    row = await world.export_row()
    assert (row["state"], row["confirmed_at"], row["object_key"]) == ("failing", None, None)
    assert "was another one when it was closed" in row["last_error"]
    assert files_in(tmp_path) == [], "nor is it left where it would be taken for one"


class Failing:
    """A sink that is away for some attempts."""

    def __init__(self, sink: Sink, times: int) -> None:
        self._sink = sink
        self._times = times

    def put(self, path: Path, key: str, digest: Digest) -> None:
        self._times -= 1
        if self._times >= 0:
            raise ExportFailed("the bucket is away")
        self._sink.put(path, key, digest)

    def close(self) -> None:
        return


async def test_an_export_is_repeated_until_it_is_confirmed_and_told_while_it_fails(
    world: World, tmp_path: Path
) -> None:
    await world.store(*auction("lot-1", 2))
    await world.chain()
    exporter = Exporter(world.pool, Failing(DirectorySink(tmp_path), 4), world.metrics, QUICK)

    async def tried(times: int) -> bool:
        await exporter.once()
        return bool((await world.export_row())["tries"] >= times)

    await eventually(lambda: tried(4))
    row = await world.export_row()
    assert (row["state"], row["last_error"], row["confirmed_at"]) == ("failing", "the bucket is away", None)
    running = asyncio.create_task(exporter.run())

    async def confirmed() -> bool:
        exporter.wake()
        return bool((await world.export_row())["state"] == "confirmed")

    await eventually(confirmed)
    running.cancel()
    await asyncio.wait([running])
    assert (world.metrics.exports, world.metrics.export_failures) == (1, 4)
    assert exporter.alarms == {}


async def test_exports_that_keep_failing_are_an_alarm(world: World, tmp_path: Path) -> None:
    await world.store(*auction("lot-1", 2))
    await world.chain()
    exporter = Exporter(world.pool, Failing(DirectorySink(tmp_path), 10**9), world.metrics, QUICK)
    running = asyncio.create_task(exporter.run())

    async def alarmed() -> bool:
        exporter.wake()
        return bool(exporter.alarms)

    await eventually(alarmed)
    running.cancel()
    await asyncio.wait([running])
    assert exporter.alarms["exports"] == "1 keep failing, such as lot-1: the bucket is away"
    assert exporter.open == 1


async def test_a_spoilt_item_is_not_exported(world: World, tmp_path: Path) -> None:
    await world.store(*auction("lot-1", 2))
    await world.chain()
    await world.tamper("UPDATE bids SET amount = 1 WHERE seq = 1")
    exporter = Exporter(world.pool, DirectorySink(tmp_path), world.metrics)
    assert await exporter.once()
    row = await world.export_row()
    assert row["state"] == "failing"
    assert "1:1 of lot-1 does not fit its hash" in row["last_error"]
    assert files_in(tmp_path) == []


async def test_an_item_in_another_state_than_its_log_is_not_exported(world: World, tmp_path: Path) -> None:
    await world.store(*auction("lot-1", 2))
    await world.chain()
    await world.tamper("UPDATE items SET highest_bidder_id = 'mallory'")
    assert await Exporter(world.pool, DirectorySink(tmp_path), world.metrics).once()
    row = await world.export_row()
    assert (row["state"], "another state than after its last event" in row["last_error"]) == ("failing", True)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """This process cannot write more than so many bytes into a file, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_here_is_told_as_what_it_is(world: World, tmp_path: Path) -> None:
    await world.store(*auction("lot-1", 1_000))
    await world.chain(Chainer(world.pool, world.metrics))
    chainer = Chainer(world.pool, world.metrics)
    chainer.offer(["lot-1"])
    await world.chain(chainer)
    exporter = Exporter(world.pool, DirectorySink(tmp_path), world.metrics, QUICK)
    with files_of_at_most(4_096):
        assert await exporter.once(), "it does not look like an outage of PostgreSQL"
    row = await world.export_row()
    assert (row["state"], row["tries"]) == ("failing", 1)
    assert "cannot be written here" in row["last_error"]
    await world.pool.execute("UPDATE exports SET next_try_at = now()")
    assert await exporter.once()
    assert (await world.export_row())["state"] == "confirmed"


async def test_an_archiver_that_dies_on_an_export_leaves_it_to_be_tried_again(world: World, tmp_path: Path) -> None:
    class Hanging(Failing):
        def put(self, path: Path, key: str, digest: Digest) -> None:
            raise SystemError("dies here")

    await world.store(*auction("lot-1", 2))
    await world.chain()
    with pytest.raises(SystemError):
        await Exporter(world.pool, Hanging(DirectorySink(tmp_path), 0), world.metrics).once()
    successor = Exporter(world.pool, DirectorySink(tmp_path), world.metrics)
    assert not await successor.once(), "it is claimed for a while"
    await world.pool.execute("UPDATE exports SET next_try_at = now()")
    assert await successor.once()
    assert (await world.export_row())["tries"] == 2


async def test_an_export_that_ends_whoever_tries_it_is_an_alarm(world: World, tmp_path: Path) -> None:
    class Deadly(Failing):
        def put(self, path: Path, key: str, digest: Digest) -> None:
            raise SystemError("out of memory")

    await world.store(*auction("lot-1", 2))
    await world.chain()
    for _ in range(3):
        await world.pool.execute("UPDATE exports SET next_try_at = now()")
        with pytest.raises(SystemError):
            await Exporter(world.pool, Deadly(DirectorySink(tmp_path), 0), world.metrics).once()
    successor = Exporter(world.pool, DirectorySink(tmp_path), world.metrics)
    running = asyncio.create_task(successor.run())

    async def alarmed() -> bool:
        return bool(successor.alarms)

    await eventually(alarmed)
    running.cancel()
    await asyncio.wait([running])
    assert successor.alarms["exports"] == "1 keep failing, such as lot-1: the archiver ended in the middle of it"


class Stuck(Failing):
    """A sink whose calls return when a test says so."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink, 0)
        self.may_return = threading.Event()
        self.calls = 0

    def put(self, path: Path, key: str, digest: Digest) -> None:
        self.calls += 1
        if self.may_return.wait(120):
            super().put(path, key, digest)


async def test_a_sink_that_hangs_keeps_one_thread_and_the_export_is_tried_again_once_it_returns(
    world: World, tmp_path: Path
) -> None:
    sink = Stuck(DirectorySink(tmp_path))
    options = replace(QUICK, attempt_s=1.0, look_every_s=0.01)
    exporter = Exporter(world.pool, sink, world.metrics, options)
    for item_id in ("lot-1", "lot-2"):
        await world.store(*auction(item_id, 2))
    await world.chain()
    running = asyncio.create_task(exporter.run())
    try:
        await eventually(lambda: "has not returned" in exporter.alarms.get("exports", ""), seconds=60)
        looks = 0

        def has_looked() -> bool:
            nonlocal looks
            looks += 1
            return looks > 30

        await eventually(has_looked)
        assert sink.calls == 1, "nothing else is tried meanwhile"
        assert sorted(row["tries"] for row in await world.pool.fetch("SELECT tries FROM exports")) == [0, 1]
        sink.may_return.set()

        async def confirmed() -> bool:
            return bool(await world.value("SELECT count(*) = 2 FROM exports WHERE state = 'confirmed'"))

        await eventually(confirmed, seconds=60)
        await eventually(lambda: exporter.alarms == {}, seconds=60)
    finally:
        sink.may_return.set()
        running.cancel()
        await asyncio.wait([running])


async def test_a_disk_of_temporary_files_that_hangs_holds_up_nothing_else(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, folders = tempfile.mkdtemp, list[Path]()

    def made(*args: Any, **named: Any) -> str:
        folder = Path(make(*args, **named))
        if not folders:
            # To open it for writing hangs until somebody reads it.
            os.mkfifo(folder / "export.jsonl.gz")
        folders.append(folder)
        return str(folder)

    monkeypatch.setattr(tempfile, "mkdtemp", made)
    exporter = Exporter(world.pool, DirectorySink(tmp_path), world.metrics, replace(QUICK, attempt_s=1.0))
    await world.store(*auction("lot-1", 2))
    await world.chain()
    async with asyncio.timeout(60):
        assert await exporter.once()
        assert not await exporter.once(), "nothing else is tried meanwhile"
        assert (await world.export_row())["state"] == "failing"
        await asyncio.to_thread((folders[0] / "export.jsonl.gz").read_bytes)
        await eventually(lambda: not folders[0].exists())

        async def confirmed() -> bool:
            await exporter.once()
            return bool((await world.export_row())["state"] == "confirmed")

        await eventually(confirmed)
    assert not any(folder.exists() for folder in folders)


@pytest.fixture
def s3_url() -> Iterator[str]:
    """A server that speaks S3, on this machine."""
    pytest.importorskip("boto3", reason="boto3 is not installed (the extra `aws`)")
    servers = pytest.importorskip("moto.server", reason="moto's server is not installed: pip install 'moto[server]'")
    (port,) = free_ports(1)
    server = servers.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.mark.filterwarnings("default")  # of packages that are not ours
async def test_an_export_gets_to_a_bucket(
    world: World, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    sink = open_sink(folder="", bucket="archive", endpoint_url=s3_url, timeout_s=30)
    assert sink is not None
    exporter = Exporter(world.pool, sink, world.metrics, QUICK)
    await world.store(*auction("lot-1", 3))
    await world.chain()
    assert await exporter.once()
    assert (await world.export_row())["state"] == "failing", "there is no such bucket"
    client = importlib.import_module("shared.aws.clients").open_s3(endpoint_url=s3_url)
    await asyncio.to_thread(
        client.create_bucket,
        Bucket="archive",
        CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
    )
    await world.pool.execute("UPDATE exports SET next_try_at = now()")
    assert await exporter.once()
    row = await world.export_row()
    assert row["state"] == "confirmed", row["last_error"]
    path = tmp_path / "downloaded"
    await asyncio.to_thread(client.download_file, "archive", row["object_key"], str(path))
    assert verify(path).head.hash == row["head"]
    client.close()
    sink.close()


@pytest.mark.acceptance
async def test_from_the_first_bid_to_the_verified_export(start_stack: StackFactory) -> None:
    stack = await start_stack()
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as http:
        for user, amount in (("ann", 10), ("bob", 12.5), ("ann", 20)):
            placed = await http.post("/api/v1/items/lamp/bid", json={"user_id": user, "amount": amount})
            assert placed.status_code == 201, placed.text
        answer = await http.post("/api/v1/items/lamp/cancel", json={"reason": "broken"})
        assert answer.status_code == 200, answer.text

    async def exported() -> list[Path]:
        return files_in(stack.data_dir / "exports")

    (path,) = await eventually(exported, seconds=60)
    code, text = await bidding("verify-export", str(path), env={})
    assert (code, "5 events fit (3 bids, 0 voids), up to 1:4" in text) == (0, True), text
    where = {"POSTGRES_URL": stack.urls.postgres_url}
    code, text = await bidding("audit", "lamp", "--json", env=where)
    report = json.loads(text)
    assert (code, report["fits"], report["up_to"]) == (0, 5, "1:4")

    async with httpx.AsyncClient(base_url=stack.urls.archiver_url, timeout=30) as http:

        async def is_counted() -> bool:
            """Both figures, which follow a moment after the file."""
            metrics = (await http.get("/metrics")).text
            return "archiver_chained_events_total 5\n" in metrics and "archiver_exports_total 1\n" in metrics

        await eventually(is_counted, "what was chained and exported, in the metrics", seconds=60)
        assert (await http.get("/ready")).json()["alarms"] == {}

    connection = await asyncpg.connect(stack.urls.postgres_url)
    await connection.execute("UPDATE bids SET amount = 1 WHERE item_id = 'lamp' AND seq = 2")
    await connection.close()
    code, text = await bidding("audit", "lamp", "--data-dir", str(stack.data_dir), env={"POSTGRES_URL": ""})
    assert (code, "bid 1:2 does not fit" in text) == (1, True), text
    path.write_bytes(path.read_bytes()[:-9])
    code, text = await bidding("verify-export", str(path), env={})
    assert (code, "line 7" in text) == (1, True), text
    assert (await bidding("audit", "nothing", env=where))[0] == 2
    assert (await bidding("verify-export", "not-there", env={}))[0] == 2
