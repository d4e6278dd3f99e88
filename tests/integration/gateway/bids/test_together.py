"""Several calls of a script as one command: each has the reply, or the error, that it would have alone."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from api_gateway.engine.bids.batcher import BIDS_PER_CALL_MAX, PendingBid
from api_gateway.engine.bids.errors import ItemMissing
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.bids.scripts import BidScripts, Decided
from api_gateway.engine.creation.new_item import NewItem, created_members
from api_gateway.engine.item_scripts import ItemScripts, ScriptLimits
from api_gateway.engine.relay.shard_scripts import ShardScripts
from shared import names
from shared.domain.auction import Terms
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.item_hash import item_fields
from shared.redis_layout.keys import cursors_key
from shared.redis_layout.scripts import CALLS_TOGETHER_MAX, Script
from shared.redis_layout.verdicts import AcceptedBid, RefusedBid, parse_verdict
from tests.stack import StackFactory

pytestmark = pytest.mark.integration

REPLIES = Script.of("""
    local what = ARGV[1]
    if what == 'value' then return redis.call('INCRBY', KEYS[1], ARGV[2]) end
    if what == 'nothing' then return nil end
    if what == 'list' then return {1, {'a', false}, 'b'} end
    if what == 'keys' then return {#KEYS, #ARGV} end
    if what == 'fault' then return 1 + nil end
    redis.call('SET', KEYS[1], 'half')
    return redis.call('LPUSH', KEYS[1], 'x')
""")


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, protocol=2) as client:
        yield client


async def test_each_call_has_its_own_reply(redis: Redis) -> None:
    key = f"{{x}}:{secrets.token_hex(4)}"
    calls: list[Any] = [
        ([key], ["value", 2]),
        ([key], ["nothing"]),
        ([], ["keys"]),
        ([key, key, key], ["keys", "", "3"]),
        ([key + "-half"], ["broken"]),
        ([], ["fault"]),
        ([], ["list"]),
        ([key], ["value", 3]),
    ]
    found = await REPLIES.run_each(redis, calls)
    assert [reply for reply in found if not isinstance(reply, Exception)] == [
        *(2, None, [0, 1], [3, 3], [1, [b"a", None], b"b"], 5)
    ]
    broken, fault = (reply for reply in found if isinstance(reply, Exception))
    assert isinstance(broken, ResponseError)
    assert "WRONGTYPE" in str(broken)
    assert isinstance(fault, ResponseError)
    assert "arithmetic on a nil value" in str(fault)
    assert await redis.get(key + "-half") == b"half", "what a call did before its error stays, as it does alone"


async def test_however_many_calls_there_are_all_are_made_in_order(redis: Redis) -> None:
    key = f"{{x}}:{secrets.token_hex(4)}"
    count = 3 * CALLS_TOGETHER_MAX + 1
    await redis.script_flush()
    assert await REPLIES.run_each(redis, [([key], ["value", 1])] * count) == list(range(1, count + 1))
    assert await REPLIES.run_each(redis, []) == []


def bid_on(item_id: str, amount: int) -> PendingBid:
    verdict = PendingVerdict()
    return PendingBid(item_id, "ann", secrets.token_hex(8), amount, None, None, False, verdict)


async def opened(redis: Redis, item_id: str) -> None:
    await ShardScripts(redis).init_shard(names.shard_of(item_id))
    terms = Terms(item_id=item_id, start_us=0, start_price=100)
    result = await ItemScripts(redis, ScriptLimits()).open_item(
        item_id,
        start_us=None,
        end_us=None,
        length_us=None,
        event_members=created_members(NewItem(terms, name=item_id)),
        fields=item_fields(terms, name=item_id, description=""),
        fence="",
    )
    assert result.created


async def test_bids_on_many_items_are_decided_as_if_alone(start_stack: StackFactory) -> None:
    """One is missing, one is of a closed shard, one is in disorder; 99 others take bids, two of them many at once."""
    stack = await start_stack(services=())
    async with Redis.from_url(stack.urls.redis_url, protocol=2) as redis:
        items = [f"many-{number}" for number in range(102)]
        for item_id in items:
            if item_id != "many-100":
                await opened(redis, item_id)
        closed = names.shard_of("many-101")
        in_disorder = next(one for one in items[:99] if names.shard_of(one) not in (closed, names.shard_of("many-99")))
        await redis.hdel(cursors_key(closed), "epoch")
        await redis.delete(f"{{{names.shard_of(in_disorder)}}}:recent:{in_disorder}")
        await redis.set(f"{{{names.shard_of(in_disorder)}}}:recent:{in_disorder}", "no list")
        calls = [[bid_on(item_id, 100), bid_on(item_id, 99)] for item_id in items]
        calls[7] = [bid_on(items[7], 100 + number) for number in range(200)]
        scripts = BidScripts(redis, ScriptLimits(), timeout_s=30)
        await redis.script_flush()
        try:
            results = await scripts.place(calls)
        finally:
            await scripts.close()

        assert isinstance(results[100], ItemMissing)
        entries: dict[str, list[int]] = {}
        for call, result in zip(calls, results, strict=True):
            item_id = call[0].item_id
            shard = names.shard_of(item_id)
            if shard == closed or item_id in ("many-100", in_disorder):
                assert isinstance(result, Exception), item_id
                continue
            assert isinstance(result, Decided), (item_id, result)
            first, *others = [parse_verdict(line) for line in result.verdicts]
            assert isinstance(first, AcceptedBid)
            assert first.current_bid == 100
            if item_id == items[7]:
                assert all(isinstance(other, AcceptedBid) for other in others)
                assert len(others) == 199
            else:
                assert [type(other) for other in others] == [RefusedBid]
            assert result.lineage == Lineage("", 1)
            entries.setdefault(shard, []).append(result.entry)
        for shard, numbers in entries.items():
            assert numbers == sorted(set(numbers)), shard
            length = await cast(Any, redis.xlen(f"{{{shard}}}:outbox"))
            assert numbers[-1] == length


async def test_several_calls_of_one_item_are_decided_in_their_order(
    start_stack: StackFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the text of the script. By its digest the first call might find none, and the second one that another gateway
    has loaded in between."""
    stack = await start_stack(services=())
    async with Redis.from_url(stack.urls.redis_url, protocol=2) as redis:
        for item_id in ("hot", "warm", "cool"):
            await opened(redis, item_id)
        sizes = (BIDS_PER_CALL_MAX, BIDS_PER_CALL_MAX, 10)
        amounts = iter(range(100, 100 + sum(sizes)))
        hot = [[bid_on("hot", next(amounts)) for _ in range(size)] for size in sizes]
        calls = [hot[0], [bid_on("warm", 100)], hot[1], [bid_on("cool", 100)], hot[2]]
        scripts = BidScripts(redis, ScriptLimits(), timeout_s=30)
        verbs: list[str] = []
        exchange = scripts._exchange

        async def watched(connection: Any, commands: Any) -> list[Any]:
            verbs.extend(command[0] for command in commands)
            return await exchange(connection, commands)

        monkeypatch.setattr(scripts, "_exchange", watched)
        await redis.script_flush()
        try:
            results = await scripts.place(calls)
            await scripts.place([[bid_on("warm", 200)]])
        finally:
            await scripts.close()

    seqs: list[int] = []
    entries: list[int] = []
    for call, result in zip(calls, results, strict=True):
        assert isinstance(result, Decided), result
        verdicts = [parse_verdict(line) for line in result.verdicts]
        assert all(isinstance(verdict, AcceptedBid) for verdict in verdicts)
        if call[0].item_id == "hot":
            seqs += [cast(AcceptedBid, verdict).seq for verdict in verdicts]
            entries.append(result.entry)
    assert seqs == list(range(seqs[0], seqs[0] + sum(sizes)))
    assert entries == sorted(entries)
    # "cool" and the last ten are one command; what only "warm" is in goes by the digest, also the bid afterwards.
    assert [verb for verb in verbs if verb != "EVALSHA"] == ["EVAL"] * 3
    assert verbs[-1] == "EVALSHA"
