"""A relay that has nothing to do asks whether there is something, and reads nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from api_gateway.engine.relay.options import RelayOptions
from api_gateway.engine.relay.shard_scripts import ShardScripts
from shared import names
from shared.clients.cluster.client import ClusterClient
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.scripts import Call, Script
from tests.unit.api_gateway.engine.relay.bench import OURS, SHARD, Bench
from tests.waiting import eventually

ROOT = Path(__file__).parents[5]


class Counted:
    """Counts the questions for news, and the turns, of a bench."""

    def __init__(self, bench: Bench) -> None:
        self.asked: list[dict[str, tuple[Lineage, int]]] = []
        self.turns: list[list[str]] = []
        news, turn = bench.scripts.news, bench.scripts.turn

        async def counted_news(known: Mapping[str, tuple[Lineage, int]]) -> set[str]:
            self.asked.append(dict(known))
            return await news(known)

        async def counted_turn(advances: Mapping[str, Any], after: Mapping[str, int], **more: Any) -> Any:
            self.turns.append(list(after))
            return await turn(advances, after, **more)

        bench.scripts.news = counted_news  # type: ignore[method-assign]
        bench.scripts.turn = counted_turn  # type: ignore[method-assign]


async def test_while_there_is_nothing_no_outbox_is_read() -> None:
    bench = Bench(1, 2)
    counted = Counted(bench)
    async with bench.running():
        await bench.reached(2)
        await eventually(lambda: counted.asked[-1:] == [{SHARD: (OURS, 2)}])
        counted.asked.clear()
        counted.turns.clear()
        await eventually(lambda: len(counted.asked) > 5)
        assert counted.turns == []
        # The hint of this entry got lost.
        bench.redis.entries.append(3)
        await bench.reached(3)
    assert counted.turns[0] == [SHARD]


async def test_a_hint_puts_off_no_look_at_the_others() -> None:
    bench = Bench(lease_ms=600_000)
    counted = Counted(bench)
    bench.relay._options = RelayOptions(poll_ms=60_000)
    async with bench.running():
        await eventually(lambda: SHARD in bench.relay.owned_shards() and not bench.relay._dirty)
        # Nearly all of the interval has passed.
        bench.relay._look_due_s = asyncio.get_running_loop().time() + 0.2
        bench.relay.notice(SHARD)
        looks = len(counted.asked)
        await eventually(lambda: len(counted.asked) > looks)


async def test_it_asks_once_in_its_interval() -> None:
    bench = Bench(lease_ms=600_000)
    counted = Counted(bench)
    bench.relay._options = RelayOptions(poll_ms=60_000)
    async with bench.running():
        await eventually(lambda: SHARD in bench.relay.owned_shards() and not bench.relay._dirty)
        for _ in range(5):
            bench.relay.notice(SHARD)
            await asyncio.sleep(0.01)
    # The other one is that of the renewal of the leases.
    assert len(counted.asked) <= 2


async def test_another_lineage_is_noticed_though_nothing_is_written() -> None:
    bench = Bench(1)
    async with bench.running():
        await bench.reached(1)
        bench.redis.entries, bench.redis.cursors.epoch, bench.redis.cursors.published = [], 2, 0
        await eventually(lambda: bench.relay._owned[SHARD].lineage == Lineage(OURS.run, 2))


@pytest.mark.parametrize(("is_cluster", "commands"), [(False, 1), (True, 64)])
async def test_all_shards_are_one_command_and_on_a_cluster_one_each(
    monkeypatch: pytest.MonkeyPatch, is_cluster: bool, commands: int
) -> None:
    sent: list[Call] = []

    async def run_all(script: Script, redis: Any, calls: list[Call]) -> list[Any]:
        sent.extend(calls)
        # Of each command the last shard has news.
        return [[len(keys), 1] for keys, _ in calls]

    monkeypatch.setattr(Script, "run_all", run_all)
    redis = ClusterClient.__new__(ClusterClient) if is_cluster else None
    found = await ShardScripts(cast(Any, redis)).news(dict.fromkeys(names.SHARDS, (OURS, 7)))
    assert len(sent) == commands
    assert found == ({*names.SHARDS} if is_cluster else {names.SHARDS[-1]})
    assert {argument for _, arguments in sent for argument in arguments} == {"1 run-1 7"}


def test_each_script_that_writes_an_entry_says_so_in_the_cursors() -> None:
    """The relay does not look into an outbox whose `next` it knows."""
    folders = ("api_gateway", "archival_worker", "shared")
    texts = {path.name: path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.lua")}
    writing = {name: text for name, text in texts.items() if "'XADD'" in text}
    assert {"item.lua", "open_item.lua", "revoke.lua"} <= writing.keys()
    for name, text in writing.items():
        after = text[text.rindex("'XADD'") :]
        assert re.search(r"redis\.call\('HSET', [^\n]*'next'", after), name
