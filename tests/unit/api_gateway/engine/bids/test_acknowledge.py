"""Who is told when that a bid is safe, without a network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, NoScriptError

from api_gateway.engine.bids import acknowledge
from api_gateway.engine.bids.acknowledge import LogAcknowledger, ReplicaAcknowledger
from shared.domain.errors import OutcomeUnknown
from shared.redis_layout.cursors import FIELDS, Lineage
from shared.redis_layout.keys import shard_of_key
from tests.waiting import eventually

OURS = Lineage("run-1", 1)


class FakeRedis:
    """The cursors, as a pipeline of HMGETs finds them; also that pipeline."""

    def __init__(self, published: int, lineage: Lineage = OURS, *, last: int | None = None) -> None:
        """``last``: the newest entry, where it is not the one that was published last."""
        self.published = published
        self.last = published if last is None else last
        self.lineage: Lineage | None = lineage
        self.fails = 0
        self._asked = 0

    def pipeline(self, *, transaction: bool) -> FakeRedis:
        self._asked = 0
        return self

    def _cursors(self) -> list[bytes | None]:
        lineage = self.lineage
        found = {"next": b"%d" % self.last, "published": b"%d" % self.published}
        if lineage is not None:
            found |= {"run": lineage.run.encode(), "epoch": b"%d" % lineage.epoch}
        return [found.get(field) for field in FIELDS]

    def hmget(self, key: str, fields: list[str]) -> asyncio.Future[list[bytes | None]]:
        self._asked += 1
        answer = asyncio.get_running_loop().create_future()
        answer.set_result(self._cursors())
        return answer

    async def execute(self) -> list[list[bytes | None]]:
        if self.fails:
            self.fails -= 1
            raise RedisConnectionError("away")
        return [self._cursors()] * self._asked


def acknowledger(timeout_s: float = 30.0, *, published: int = 0) -> LogAcknowledger:
    return LogAcknowledger(cast(Any, FakeRedis(published)), timeout_s=timeout_s)


async def test_everything_up_to_the_published_entry_is_confirmed() -> None:
    log = acknowledger()
    waiting = [asyncio.create_task(log.confirm("s01", OURS, entry)) for entry in (5, 3, 4, 6, 9)]
    await asyncio.sleep(0)
    log.published("s01", OURS, 5)
    done, _ = await asyncio.wait(waiting, timeout=0.05)
    assert done == set(waiting[:3])
    log.published("s02", OURS, 9)
    assert not any(still.done() for still in waiting[3:])
    log.published("s01", OURS, 9)
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("other", [Lineage("run-1", 2), Lineage("run-2", 1)])
async def test_the_same_number_of_another_epoch_or_run_confirms_nothing(other: Lineage) -> None:
    """It was given to something else after the shard was rebuilt, or after a failover that lost this one."""
    redis = FakeRedis(99, other)
    log = LogAcknowledger(cast(Any, redis), timeout_s=2.0)
    looking = asyncio.create_task(log.run())
    waiting = asyncio.create_task(log.confirm("s01", OURS, 7))
    await asyncio.sleep(0)
    log.published("s01", other, 99)
    with pytest.raises(OutcomeUnknown):
        await waiting
    await log.confirm("s01", other, 7)
    looking.cancel()


async def test_what_is_not_published_in_time_is_unknown() -> None:
    log = acknowledger(timeout_s=0.01)
    with pytest.raises(OutcomeUnknown):
        await log.confirm("s01", OURS, 1)
    log.published("s01", OURS, 1)  # too late, and harmless


async def test_what_was_published_before_anybody_waited_is_found_by_looking() -> None:
    """The relay may be faster than the answer of a large flush; nobody tells again of an entry that is published."""
    log = acknowledger(published=7)
    looking = asyncio.create_task(log.run())
    log.published("s01", OURS, 7)
    await asyncio.wait_for(log.confirm("s01", OURS, 7), 30)
    looking.cancel()


async def test_a_closed_shard_secures_nothing() -> None:
    redis = FakeRedis(7)
    redis.lineage = None
    log = LogAcknowledger(cast(Any, redis), timeout_s=10)
    with pytest.raises(OutcomeUnknown):
        await log.secure("s01")


async def test_what_is_secured_is_the_newest_entry_and_not_the_last_one_that_is_published() -> None:
    log = LogAcknowledger(cast(Any, FakeRedis(5, last=7)), timeout_s=30)
    waiting = asyncio.create_task(log.secure("s01"))
    await eventually(lambda: bool(log._waiting))
    log.published("s01", OURS, 6)
    await asyncio.sleep(0)
    assert not waiting.done()
    log.published("s01", OURS, 7)
    await waiting


async def test_cursors_that_cannot_be_read_are_looked_at_again() -> None:
    redis = FakeRedis(7)
    redis.fails = 2
    log = LogAcknowledger(cast(Any, redis), timeout_s=30)
    looking = asyncio.create_task(log.run())
    await log.confirm("s01", OURS, 7)
    looking.cancel()


async def test_nothing_is_looked_at_for_those_who_have_given_up() -> None:
    """A shard that nobody publishes would be looked at for as long as the process lives."""
    log = acknowledger(timeout_s=0.01)
    looking = asyncio.create_task(log.run())
    with pytest.raises(OutcomeUnknown):
        await log.confirm("s01", OURS, 1)
    await eventually(lambda: not log._waiting)
    looking.cancel()


async def test_the_others_are_told_in_order_when_one_has_given_up() -> None:
    """Those who wait are kept as a heap. The one that gave up was its top, and what is left of it has 5 before 2."""
    log = acknowledger()
    waiting = [asyncio.create_task(log.confirm("s01", OURS, entry)) for entry in (1, 5, 2, 6, 7, 3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    looking = asyncio.create_task(log.run())
    await eventually(lambda: len(log._waiting["s01", OURS]) == 5)
    looking.cancel()
    log.published("s01", OURS, 3)
    await asyncio.wait_for(asyncio.gather(waiting[2], waiting[5]), 10)
    assert not any(waiting[at].done() for at in (1, 3, 4))
    log.published("s01", OURS, 7)
    await asyncio.gather(*waiting[1:])


async def test_who_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledge, "WAITING_MAX", 2)
    log = acknowledger()
    waiting = [asyncio.create_task(log.confirm("s01", OURS, 1)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OutcomeUnknown):
        await log.confirm("s01", OURS, 1)
    log.published("s01", OURS, 1)
    await asyncio.gather(*waiting)
    late = asyncio.create_task(log.confirm("s01", OURS, 2))
    await asyncio.sleep(0)
    log.published("s01", OURS, 2)
    await late


class Replicas:
    """A primary with replicas, as a pool that makes connections to it. Marks are written; WAIT answers when the test
    says how many replicas have them."""

    def __init__(self) -> None:
        self.run = "run-1"
        self.commands: list[str] = []
        self.asked: tuple[Any, ...] = ()
        self.hangs = 0
        self.closed = 0
        self.counts: asyncio.Queue[int | Exception] = asyncio.Queue()
        self.moved: set[str] = set()
        # Between the mark and the look that follows WAIT: shards that move, and runs that have them since.
        self.moves_then: set[str] = set()
        self.marked_then: dict[str, str] = {}
        self.connected = 0
        self.loaded = False

    @property
    def connection_pool(self) -> Replicas:
        return self

    def make_connection(self) -> FakeConnection:
        self.connected += 1
        return FakeConnection(self, self.run)


class FakeConnection:
    def __init__(self, replicas: Replicas, run: str) -> None:
        self._replicas = replicas
        self.run = run
        self._unread: list[tuple[Any, ...]] = []

    async def connect(self) -> None:
        return

    async def disconnect(self, *, nowait: bool) -> None:
        self._replicas.closed += 1

    async def send_command(self, *words: Any) -> None:
        self._replicas.commands.append(words[0])
        self._replicas.asked = words
        self._unread.append(words)

    async def read_response(self, **_: float) -> int | bytes:
        words = self._unread.pop(0)
        if self._replicas.hangs:
            self._replicas.hangs -= 1
            await asyncio.Event().wait()
        if shard_of_key(str(words[3:4] and words[3])) in self._replicas.moved:
            raise MovedError("1 10.0.0.1:6379")
        match words[0]:
            case "HGET":
                shard = str(shard_of_key(str(words[1])))
                if shard in self._replicas.moves_then:
                    raise MovedError("1 10.0.0.1:6379")
                return self._replicas.marked_then.get(shard, self.run).encode()
            case "EVALSHA" if not self._replicas.loaded:
                raise NoScriptError
            case "EVAL":
                self._replicas.loaded = True
                return 1
            case "EVALSHA":
                return 1
        count = await self._replicas.counts.get()
        if isinstance(count, Exception):
            raise count
        return count


@asynccontextmanager
async def asking(
    replicas: Replicas, *, wanted: int = 1, timeout_ms: int = 5_000, shards_may_move: bool = False
) -> AsyncIterator[ReplicaAcknowledger]:
    acknowledger = ReplicaAcknowledger(
        cast(Any, replicas),
        replicas=wanted,
        timeout_ms=timeout_ms,
        run_of=lambda connection: cast(Any, connection).run,
        shards_may_move=shards_may_move,
    )
    running = asyncio.create_task(acknowledger.run())
    yield acknowledger
    running.cancel()
    await asyncio.wait([running])
    assert replicas.closed == replicas.connected, "no connection is left open"


async def begun(replicas: Replicas, questions: int) -> None:
    async def asked() -> bool:
        return replicas.commands.count("WAIT") >= questions

    await eventually(asked)


async def test_one_question_answers_all_who_waited_before_it_and_nobody_after() -> None:
    replicas = Replicas()
    async with asking(replicas) as acknowledger:
        first = [asyncio.create_task(acknowledger.confirm("s01", OURS, n)) for n in range(100)]
        await begun(replicas, 1)
        late = asyncio.create_task(acknowledger.confirm("s02", OURS, 1))
        await asyncio.sleep(0)
        replicas.counts.put_nowait(1)
        await asyncio.gather(*first)
        await begun(replicas, 2)
        assert not late.done(), "what was decided after the mark was written is not known to be anywhere"
        replicas.counts.put_nowait(1)
        await late
    assert replicas.commands == ["EVALSHA", "EVAL", "WAIT", "EVALSHA", "WAIT"]


@pytest.mark.parametrize("order", [("s01", "s02"), ("s02", "s01")])
async def test_the_mark_of_another_shard_says_nothing_about_one_that_has_moved(order: tuple[str, str]) -> None:
    """1. A node decides a bid. 2. Its shard moves to another node, and this one's replicas drop it. 3. The mark of
    another shard reaches them. That other shard is confirmed, whoever has asked last."""
    replicas = Replicas()
    replicas.moved.add("s01")
    async with asking(replicas, shards_may_move=True) as acknowledger:
        waiting = {shard: asyncio.create_task(acknowledger.confirm(shard, OURS, 1)) for shard in order}
        for _ in range(3):
            replicas.counts.put_nowait(1)
        await waiting["s02"]
        with pytest.raises(OutcomeUnknown):
            await waiting["s01"]
    assert replicas.connected == 1


@pytest.mark.parametrize("how", ["gone", "gone and back"])
async def test_a_shard_that_moves_between_mark_and_answer_is_not_confirmed(how: str) -> None:
    """The replicas that WAIT counts have dropped it meanwhile; those of the node that has got it were not asked."""
    replicas = Replicas()
    if how == "gone":
        replicas.moves_then.add("s01")
    else:
        replicas.marked_then["s01"] = "run-2"
    async with asking(replicas, shards_may_move=True) as acknowledger:
        waiting = {shard: asyncio.create_task(acknowledger.confirm(shard, OURS, 1)) for shard in ("s01", "s02")}
        for _ in range(3):
            replicas.counts.put_nowait(1)
        await waiting["s02"]
        with pytest.raises(OutcomeUnknown):
            await waiting["s01"]
    assert replicas.connected == 1


async def test_fewer_replicas_than_wanted_are_none() -> None:
    replicas = Replicas()
    async with asking(replicas, wanted=2) as acknowledger:
        waiting = asyncio.create_task(acknowledger.confirm("s01", OURS, 1))
        for count in (0, 1, 1):
            replicas.counts.put_nowait(count)
        await begun(replicas, 4)
        assert replicas.asked == ("WAIT", 2, 5_000), "Redis gives up after that time, too"
        assert not waiting.done()
        replicas.counts.put_nowait(2)
        await waiting


async def test_each_waits_for_its_own_time_and_not_for_the_question_before() -> None:
    replicas = Replicas()
    async with asking(replicas, timeout_ms=100) as acknowledger:
        began_s = asyncio.get_running_loop().time()
        outcomes = await asyncio.gather(
            *(acknowledger.confirm("s01", OURS, n) for n in range(500)), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {OutcomeUnknown}
        # One after the other they would wait 50 s.
        assert asyncio.get_running_loop().time() - began_s < 10


async def test_another_run_than_the_one_that_decided_proves_nothing() -> None:
    """A failover between the decision and the mark: the new primary's replicas know nothing of the bid."""
    replicas = Replicas()
    replicas.run = "run-2"
    async with asking(replicas) as acknowledger:
        waiting = asyncio.create_task(acknowledger.confirm("s01", OURS, 1))
        replicas.counts.put_nowait(1)
        with pytest.raises(OutcomeUnknown):
            await waiting
        assert replicas.connected == 2, "the connection may have been the one that is out of date"
        replicas.counts.put_nowait(1)
        await acknowledger.confirm("s01", Lineage("run-2", 1), 1)


async def test_a_question_that_fails_is_asked_again_on_another_connection() -> None:
    replicas = Replicas()
    async with asking(replicas) as acknowledger:
        waiting = asyncio.create_task(acknowledger.confirm("s01", OURS, 1))
        replicas.counts.put_nowait(RedisConnectionError("gone"))
        replicas.counts.put_nowait(1)
        await waiting
        assert replicas.connected == 2


async def test_an_answer_about_another_run_that_comes_too_late_harms_nobody() -> None:
    replicas = Replicas()
    replicas.run = "run-2"
    async with asking(replicas, timeout_ms=20) as acknowledger:
        with pytest.raises(OutcomeUnknown):
            await acknowledger.confirm("s01", OURS, 1)
        waiting = asyncio.create_task(acknowledger.confirm("s01", Lineage("run-2", 1), 1))
        replicas.counts.put_nowait(1)
        replicas.counts.put_nowait(1)
        await waiting


async def test_a_redis_that_never_answers_the_mark_is_asked_again_on_another_connection() -> None:
    replicas = Replicas()
    replicas.hangs = 1
    async with asking(replicas, timeout_ms=10) as acknowledger:
        with pytest.raises(OutcomeUnknown):
            await acknowledger.confirm("s01", OURS, 1)

        async def asked_anew() -> bool:
            with contextlib.suppress(OutcomeUnknown):
                await acknowledger.confirm("s01", OURS, 2)
            return replicas.connected == 2

        await eventually(asked_anew)


async def test_who_waits_for_replicas_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledge, "WAITING_MAX", 2)
    replicas = Replicas()
    async with asking(replicas) as acknowledger:
        for questions in (1, 2):
            waiting = [asyncio.create_task(acknowledger.confirm("s01", OURS, 1)) for _ in range(2)]
            await begun(replicas, questions)
            with pytest.raises(OutcomeUnknown):
                await acknowledger.confirm("s01", OURS, 1)
            replicas.counts.put_nowait(1)
            await asyncio.wait_for(asyncio.gather(*waiting), 30)
