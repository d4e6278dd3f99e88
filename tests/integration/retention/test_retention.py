"""Items that were over long ago retire: their logs are in their exports alone, and everybody is told so."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
import pytest_asyncio

from archival_worker.chain.chainer import Chainer
from archival_worker.chain.exports import Exporter
from archival_worker.chain.sinks import DirectorySink
from archival_worker.metrics import Metrics
from archival_worker.store.archive import Archive
from archival_worker.store.dead_letters import DeadLetters
from archival_worker.store.queries import load_queries
from cache_node.retirements import Retirements
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from shared import names
from shared.archive_cache.reads import CachedReads, groups, never_unsettled
from shared.archive_reads.asking import Asking
from shared.archive_reads.feed_reads import FeedReads
from shared.archive_reads.keys import history_key, item_key
from shared.archive_reads.origin import ArchiveOrigin
from shared.archive_reads.retired import decode_retired
from shared.messages import decode_event
from shared.read_cache.opening import open_read_cache
from shared.read_cache.settings import ReadCacheSettings
from shared.redis_layout.keys import cursors_key
from tests.integration.eviction.test_returns import SlowAsking
from tests.integration.retention.retention_world import Old, old_of
from tests.stack import StackFactory, running_stack
from tests.unit.archival_worker.events import delivery, voided

pytestmark = pytest.mark.integration

REASON = {"reason": "a test"}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    # Nothing is kept of what was told before, so that each answer is the archive's.
    with running_stack(services=(API_GATEWAY, ARCHIVAL_WORKER), env={"READ_CACHE": "off"}) as stack:
        yield stack


@pytest_asyncio.fixture
async def old(stack: Stack) -> AsyncIterator[Old]:
    async with old_of(stack) as old:
        yield old


async def test_without_remove_it_is_only_said_what_would_be_done(old: Old) -> None:
    await old.sold("dry-old")
    await old.sold("dry-in-redis", evicted=False)
    before = await old.log("dry-old")
    code, text = await old.retention()
    assert code == 0, text
    assert "Would retire 1 items: 2 bids, " in text
    assert "1 stay that are still in Redis" in text
    assert await old.log("dry-old") == before
    assert await old.states() == {}
    code, text = await old.retention("--remove", "--by", "olivia")
    assert (code, "Retired 1 items: 2 bids, " in text) == (0, True), text
    assert await old.states() == {"dry-old": "retired"}
    assert (await old.house.query("SELECT actor FROM retired_items"))[0]["actor"] == "olivia"
    assert await old.rows("dry-in-redis") > 0
    await old.auction.evicted("dry-in-redis")


async def test_who_ruled_on_bidders_is_told_of_an_item_that_has_left_and_of_a_retired_one(old: Old) -> None:
    item, at = "ruled", "/api/v1/items/ruled/bidders"
    await old.house.create(item, approval_required=True, buy_now_price=50)
    for who, what, body in (
        ("ann", "approval", {"reason": "known to the house", "by": "olga"}),
        ("eve", "block", {"reason": "did not pay", "by": "olga"}),
        ("ann", "limit", {"amount": 500, "reason": "no deposit", "by": "sam"}),
    ):
        assert (await old.house.http.put(f"{at}/{who}/{what}", json=body)).status_code == 200
    await old.house.operate(f"{item}/pause")
    await old.house.operate(f"{item}/resume")
    await old.house.accepted(item, "ann", "ruled-ann", amount=50)
    await old.auction.exported(item)
    status, there = await old.get(f"{item}/audit")
    assert (status, there["retired"]) == (200, None)
    assert [each["type"] for each in there["operations"]] == ["resumed", "paused"]
    members = ("ruling", "user_id", "amount", "by", "reason")
    assert [tuple(each[member] for member in members) for each in there["rulings"]] == [
        ("limit", "ann", 500, "sam", "no deposit"),
        ("block", "eve", None, "olga", "did not pay"),
        ("approve", "ann", None, "olga", "known to the house"),
    ]
    who_may = await old.get(f"{item}/bidders")
    await old.auction.evicted(item)
    assert await old.get(f"{item}/audit") == (200, there)
    assert await old.get(f"{item}/bidders") == who_may
    await old.age(item)
    code, text = await old.retention("--remove")
    assert (code, (await old.states())[item]) == (0, "retired"), text
    key = str((await old.export_of(item)).relative_to(old.exports))
    status, told = await old.get(f"{item}/audit")
    assert (status, told["rulings"], told["operations"]) == (200, there["rulings"], [])
    assert (told["retired"]["export"], told["retired"]["bids"], len(told["retired"]["head"])) == (key, 1, 64)
    assert told["retired"]["retired_at"].endswith("Z")
    assert await old.get(f"{item}/bidders") == who_may
    nothing = {"operations": [], "rulings": [], "partial": False, "retired": None}
    assert await old.get("never-was/audit") == (200, nothing)


async def test_a_retired_item_is_told_as_before_and_where_its_bids_are(old: Old) -> None:
    item = "told"
    end = datetime.now(UTC) + timedelta(minutes=30)
    soft = {"trigger_s": 3_600, "extend_s": 3_600, "mode": "from_bid", "hard_end": "2090-01-31T18:00:00Z"}
    await old.house.create(item, buy_now_price=50, reserve_price=50, end_time=end.isoformat(), soft_close=soft)
    await old.house.operate(f"{item}/pause")
    await old.house.operate(f"{item}/resume")
    await old.house.accepted(item, "bob", f"{item}-bob", amount=1, max_amount=20)
    await old.house.accepted(item, "ann", f"{item}-ann", amount=50)
    await old.auction.exported(item)
    await old.auction.evicted(item)
    await old.age(item)
    before = await old.get(item)
    listed = (await old.house.http.get("/api/v1/items", params={"status": "sold", "limit": 200})).json()
    code, text = await old.retention("--remove")
    assert code == 0, text
    assert await old.rows(item) == 0
    assert (await old.states())[item] == "retired"
    assert await old.get(item) == before
    assert (await old.house.http.get("/api/v1/items", params={"status": "sold", "limit": 200})).json() == listed

    key = str((await old.export_of(item)).relative_to(old.exports))
    for path in ("bids", "bids?limit=1", "named-bids"):
        status, told = await old.get(f"{item}/{path}")
        assert (status, told["code"], told["export"]) == (410, "HISTORY_RETIRED", key), path
        assert (told["bids"], len(told["head"])) == (2, 64)
    void = await old.house.http.post(f"/api/v1/items/{item}/bids/{item}-ann/void", json=REASON)
    assert (void.status_code, void.json()["code"]) == (410, "HISTORY_RETIRED")
    again = await old.house.http.post("/api/v1/items", json={"id": item, "name": "another lot"})
    assert (again.status_code, again.json()["code"]) == (409, "ITEM_EXISTS")
    bid = await old.house.bid(item, "eve", f"{item}-eve", amount=1_000)
    assert (bid.status_code, bid.json()["code"]) == (200, "SOLD")
    assert await old.auction.traces(item) == []
    feed = FeedReads(old.auction.archive.asking)
    assert (await feed.newest_events(item, 10), await feed.voids(item), await feed.bidders(item, ["ann"])) == (
        [],
        [],
        set(),
    )

    code, text = await old.audit(item)
    assert code == 0
    assert text == f"{item}: 7 events fit, up to 1:6, in {old.exports}/{key} alone. Head: {told['head']}\n"
    code, text = await old.audit(item, EXPORT_DIR="", EXPORT_S3_BUCKET="")
    assert (code, "in its export alone" in text) == (2, True), text


async def test_a_tampered_item_is_told_by_the_export(old: Old) -> None:
    await old.sold("richer")
    assert (await old.retention("--remove"))[0] == 0
    await old.house.query("UPDATE items SET highest_bidder_id = 'eve' WHERE item_id = 'richer'")
    code, text = await old.audit("richer")
    assert (code, "highest_bidder_id 'eve'" in text) == (1, True), text


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "another", "rewritten"])
async def test_an_item_stays_whose_export_is_not_what_was_confirmed(old: Old, damage: str) -> None:
    item, other = f"damaged-{damage}", f"other-{damage}"
    await old.sold(item, other)
    path, data = await old.export_of(item), (await old.export_of(item)).read_bytes()
    match damage:
        case "missing":
            path.unlink()
        case "cut":
            path.write_bytes(data[:-9])
        case "flipped":
            path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
        case "another":
            path.write_bytes((await old.export_of(other)).read_bytes())
        case "rewritten":
            path.write_bytes(gzip.compress(gzip.decompress(data).replace(b'"user_id":"ann"', b'"user_id":"eve"')))
    before = await old.log(item)
    code, text = await old.retention("--remove")
    assert (code, "1 stay whose export or log" in text, f"  {item}: " in text) == (1, True, True), text
    assert await old.log(item) == before
    assert (await old.states()).get(item) is None
    assert (await old.states())[other] == "retired", "the others go on"
    path.write_bytes(data)
    code, text = await old.retention("--remove")
    assert (code, (await old.states())[item]) == (0, "retired"), text


async def test_an_item_stays_whose_log_was_tampered_with(old: Old) -> None:
    await old.sold("evidence")
    await old.house.query("UPDATE bids SET amount = amount + 1 WHERE item_id = 'evidence' AND seq = 1")
    before = await old.log("evidence")
    code, text = await old.retention("--remove")
    assert (code, "its log in the archive does not fit" in text) == (1, True), text
    assert await old.log("evidence") == before
    await old.house.query("UPDATE bids SET amount = amount - 1 WHERE item_id = 'evidence' AND seq = 1")
    assert (await old.retention("--remove"))[0] == 0


async def test_an_item_stays_that_something_may_still_happen_to(start_stack: StackFactory) -> None:
    # A stack of its own: nobody else is to find a shard without its cursors.
    stack = await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER))
    async with old_of(stack) as old:
        await stays_while_something_may_happen(old)


async def stays_while_something_may_happen(old: Old) -> None:
    await old.sold("stays")
    await old.stack.stop_process(API_GATEWAY)
    redis: Any = old.auction.redis
    cursors = cursors_key(names.shard_of("stays"))
    kept = await redis.hgetall(cursors)

    await redis.hincrby(cursors, "next", 1)
    code, text = await old.retention("--remove")
    assert (code, "1 stay that are of shards behind which the archive lags" in text) == (0, True), text
    await redis.hdel(cursors, "epoch")
    code, text = await old.retention("--remove")
    assert (code, "1 stay that are of shards that are lost" in text) == (0, True), text
    await redis.hset(cursors, mapping=kept)
    subject = names.subject_of("stays")
    letter = "INSERT INTO dead_letters (reason, detail, subject, stream_seq, data) VALUES ('clash', '', $1, 1, '')"
    await old.house.query(letter, subject)
    code, text = await old.retention("--remove")
    assert (code, "1 stay that are with dead letters" in text) == (0, True), text
    assert await old.rows("stays") > 0
    assert "stays" not in await old.states(), "nothing is left of the looks"
    await old.house.query("DELETE FROM dead_letters WHERE subject = $1", subject)
    assert (await old.retention("--remove"))[0] == 0
    assert (await old.states())["stays"] == "retired"


async def test_nothing_is_done_without_exports_or_beside_another_run(old: Old) -> None:
    code, text = await old.retention("--remove", EXPORT_DIR="", EXPORT_S3_BUCKET="")
    assert (code, "set EXPORT_DIR or EXPORT_S3_BUCKET" in text) == (3, True), text
    async with old.house.connected() as connection:
        await connection.fetchval("SELECT pg_advisory_lock(7301985221)")
        code, text = await old.retention("--remove")
    assert (code, "another run" in text) == (3, True), text
    for age in ("400", "1d", "0d", "-3d", "400 days"):
        code, text = await old.retention("--older-than", age)
        assert (code, "such as 400d" in text) == (2, True), text


@pytest.mark.parametrize("point", ["retire.checked", "retire.begun", "retire.removing"])
async def test_a_run_that_is_killed_is_taken_up_by_the_next(old: Old, point: str) -> None:
    """The last of these with so many bids that their rows are not removed in one step."""
    item = f"killed-{point.partition('.')[2]}"
    await old.house.create(item, start_price=1, buy_now_price=10_000, reserve_price=10_000)
    await old.house.accepted(item, "bob", f"{item}-bob", amount=1)
    for first in range(2, 3_002, 500) if point == "retire.removing" else ():
        bids = [{"item_id": item, "user_id": "bob", "amount": amount} for amount in range(first, first + 500)]
        answer = await old.house.http.post("/api/v1/bids:batch", json={"bids": bids})
        assert answer.status_code == 200, answer.text
    await old.house.accepted(item, "ann", f"{item}-ann", amount=10_000)
    await old.auction.exported(item)
    await old.auction.evicted(item)
    await old.age(item)
    before, told = await old.rows(item), await old.get(item)
    assert before > (5_000 if point == "retire.removing" else 0)
    code, text = await old.retention("--remove", CRASH_AT=point)
    assert code == -9, text
    left = await old.rows(item)
    assert (left < before) is (point == "retire.removing")
    state = (await old.states())[item]
    assert state == ("checking" if point == "retire.checked" else "retiring")
    assert await old.get(item) == told
    status, _ = await old.get(f"{item}/bids")
    assert status == (200 if point == "retire.checked" else 410)
    void = await old.house.http.post(f"/api/v1/items/{item}/bids/{item}-ann/void", json=REASON)
    assert void.status_code == (503 if point == "retire.checked" else 410), void.text
    if point != "retire.checked":
        assert (await old.audit(item))[0] == 0
        path, data = await old.export_of(item), (await old.export_of(item)).read_bytes()
        path.unlink()
        assert (await old.retention("--remove"))[0] == 1
        assert await old.rows(item) == left, "without its export nothing more is removed"
        path.write_bytes(data)
    code, text = await old.retention("--remove")
    assert (code, "Retired 1 items" in text) == (0, True), text
    assert ("1 of them begun by an earlier run" in text) is (point != "retire.checked"), text
    assert (await old.rows(item), (await old.states())[item]) == (0, "retired")
    assert await old.get(item) == told


async def test_what_is_delivered_again_is_known_and_what_is_new_is_put_aside(old: Old) -> None:
    item = "again"
    await old.sold(item)
    events = await old.house.query("SELECT body::text FROM events WHERE item_id = $1 ORDER BY seq", item)
    sent = [delivery(number, decode_event(row["body"].encode())) for number, row in enumerate(events, 1)]
    assert (await old.retention("--remove"))[0] == 0
    archive, item_row = Archive(old.auction.pool), await old.house.query("SELECT * FROM items WHERE item_id = $1", item)
    stored = await archive.store(sent)
    assert (stored.events, stored.duplicates, stored.dead_letters) == (0, len(sent), [])
    void = delivery(1, voided(item, 9, voids=2, status="unsold"))
    stored = await archive.store([void])
    assert (stored.events, stored.duplicates, [reason for reason, _ in stored.dead_letters]) == (0, 0, ["retired"])
    assert (await archive.store([void])).dead_letters == [], "it is one letter"
    assert await old.rows(item) == 0
    assert await old.house.query("SELECT * FROM items WHERE item_id = $1", item) == item_row
    letters = DeadLetters(archive)
    (letter,) = [letter for letter in await letters.list() if letter.reason == "retired"]
    assert (await letters.retry(letter.id)).outcome == "retired"
    assert [letter for letter in await letters.list() if letter.reason == "retired"] == []
    assert await old.rows(item) == 0
    await old.house.query("DELETE FROM dead_letters WHERE id = $1", letter.id)


async def test_chains_exports_and_recoveries_pass_over_it(old: Old, tmp_path: Any) -> None:
    await old.sold("passed-over")
    assert (await old.retention("--remove"))[0] == 0
    metrics = Metrics()
    chainer = Chainer(old.auction.pool, metrics)
    await chainer.scan()
    assert chainer.waiting == 0
    assert not await Exporter(old.auction.pool, DirectorySink(tmp_path), metrics).once()
    kept = await old.house.query(load_queries().read_item_ids, -1.0)
    assert "passed-over" not in {row["item_id"] for row in kept}
    code, text = await old.house.recover("--item", "passed-over")
    assert (code, "served from the archive" in text) == (3, True), text


async def test_a_void_that_has_begun_before_it_brings_nothing_back(old: Old) -> None:
    """1. A gateway reads the item to bring it back. 2. It retires. 3. The gateway would write it into Redis."""
    await old.sold("late-void")
    asking = SlowAsking(old.auction.pool)

    async def retires() -> None:
        assert (await old.retention("--remove"))[0] == 0

    asking.happens = retires
    returns = old.auction.returns()
    cast(Any, returns)._asking = asking
    with pytest.raises(Exception, match="in the export") as raised:
        await returns.bring_back("late-void")
    assert cast(Any, raised.value).code == "HISTORY_RETIRED"
    assert await old.auction.traces("late-void") == []
    assert (await old.states())["late-void"] == "retired"


async def test_an_item_that_comes_back_meanwhile_stays(old: Old) -> None:
    """It is brought back after its export was read, and before it is noted that it is looked at."""
    await old.sold("is-back")
    assert await old.auction.returns().bring_back("is-back")
    code, text = await old.retention("--remove")
    assert (code, "1 stay that are still in Redis" in text) == (0, True), text
    void = await old.house.http.post("/api/v1/items/is-back/bids/is-back-ann/void", json=REASON)
    assert void.status_code == 200, void.text
    assert (await old.audit("is-back"))[0] == 0


async def test_a_cache_node_forgets_the_pages(old: Old) -> None:
    await old.sold("cached")
    asking = Asking(old.auction.pool)
    origin = ArchiveOrigin(asking)
    async with open_read_cache(ReadCacheSettings(read_cache="local"), groups(origin, never_unsettled)) as cache:
        reads, retirements = CachedReads(cache, origin), Retirements(asking, cache)
        await retirements.look()
        keys = [history_key("cached"), history_key("cached", limit=1)]
        item, *pages = [await reads.get(key) for key in (item_key("cached"), *keys)]
        assert all(page and decode_retired(page) is None for page in pages)
        assert (await old.retention("--remove"))[0] == 0
        assert [await reads.get(key) for key in keys] == pages
        assert await retirements.look() == 1
        told = [decode_retired(cast(bytes, await reads.get(key))) for key in keys]
        assert [each and each.bids for each in told] == [2, 2]
        assert await reads.get(item_key("cached")) == item


async def test_a_run_may_be_stopped(old: Old) -> None:
    await old.sold("stop-1", "stop-2")
    code, text = await old.retention("--remove", "--items-max", "1")
    assert (code, "Retired 1 items" in text, "It stopped before the end" in text) == (0, True, True), text
    code, text = await old.retention("--remove")
    assert (code, "Retired 1 items" in text) == (0, True), text
