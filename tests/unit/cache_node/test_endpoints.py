"""What a key may be, who takes gzip, and what a slow or absent archive is answered; without a network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import httpx2 as httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from cache_node import endpoints
from cache_node.archive_check import CHECK_EVERY_S, ArchiveCheck
from cache_node.context import Context
from cache_node.endpoints import _takes_gzip
from shared.archive_cache.packing import pack
from shared.archive_cache.reads import CachedReads, groups, never_unsettled
from shared.domain.errors import Unavailable
from shared.http.problems import MEDIA_TYPE
from shared.read_cache.membership.view import View
from shared.read_cache.opening import open_read_cache
from shared.read_cache.ring import Node, Ring
from shared.read_cache.settings import ReadCacheSettings
from tests.waiting import eventually

PAGE = b'{"bids":[' + b",".join(b'{"seq":%d}' % number for number in range(500)) + b"]}"


class Archive:
    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {"items/lot": b'{"id":"lot"}', "items/lot/bids": PAGE}
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.is_away = False
        self.fetches = 0

    async def get(self, key: str) -> bytes | None:
        self.asked.append(key)
        await self.may_answer.wait()
        if self.is_away:
            raise Unavailable("the archive cannot be asked", retry_after_s=2)
        return self.rows.get(key)

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        self.fetches += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise Unavailable("the archive cannot be asked", retry_after_s=2)
        return []


@asynccontextmanager
async def served(archive: Archive, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    read_cache = ReadCacheSettings(read_cache="local", **settings)
    async with open_read_cache(read_cache, groups(archive, never_unsettled)) as cache:
        context = Context(None, cache, CachedReads(cache, archive), ArchiveCheck(archive), None)
        app = Starlette(
            routes=[
                Route("/api", endpoints.get_value),
                Route("/ready", endpoints.ready),
                Route("/stats", endpoints.stats),
                Route("/metrics", endpoints.metrics),
            ]
        )

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": {"context": context}}, receive, send)

        transport = httpx.ASGITransport(app=with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://cache") as client:
            yield client


@pytest.mark.parametrize(
    "key",
    [
        "",
        "lot",
        "items/",
        "items/a b",
        "items/ä",
        "items/lot/bids/0",
        "items/lot/bids/5/nonsense",
        "states/lot",
        "catalogue/newest/any/5",
        "items/" + "x" * 65,
        "items/" + "x" * 600,
        "items/lot\n",
    ],
)
async def test_a_key_that_nobody_may_ask_for_is_422(key: str) -> None:
    archive = Archive()
    async with served(archive) as http:
        answer = await http.get("/api", params={"key": key})
    assert (answer.status_code, answer.headers["content-type"]) == (422, MEDIA_TYPE)
    assert answer.json()["field"] == "key"
    assert "catalogue" not in answer.json()["detail"], "that is not told here"
    assert archive.asked == []


async def test_one_key_has_to_be_named() -> None:
    async with served(Archive()) as http:
        assert (await http.get("/api")).status_code == 422
        assert (await http.get("/api?key=items/lot&key=items/x")).status_code == 422


async def test_values_are_told_as_they_are_and_packed_to_who_takes_it() -> None:
    archive = Archive()
    async with served(archive) as http:
        plain = await http.get("/api?key=items/lot/bids", headers={"accept-encoding": "identity"})
        assert (plain.content, plain.headers.get("content-encoding")) == (PAGE, None)
        packed = await http.get("/api?key=items/lot/bids", headers={"accept-encoding": "gzip"})
        assert (packed.content, packed.headers["content-encoding"]) == (PAGE, "gzip")
        assert int(packed.headers["content-length"]) < len(PAGE) / 3
        small = await http.get("/api?key=items/lot", headers={"accept-encoding": "gzip"})
        assert (small.content, small.headers.get("content-encoding")) == (b'{"id":"lot"}', None)
        assert archive.asked == ["items/lot/bids", "items/lot"]
        missing = await http.get("/api?key=items/x")
        assert (missing.status_code, missing.json()["code"]) == (404, "KEY_NOT_FOUND")
        text = (await http.get("/metrics")).text
        assert 'cache_answers_total{status="200"} 3' in text
        assert 'cache_answers_total{status="404"} 1' in text
        assert "cache_loads_total 3" in text
        assert (await http.get("/stats")).json()["counts"]["gets"] == 4


async def test_questions_in_place_of_damaged_values_have_the_same_bound() -> None:
    class Garbled(Archive):
        now = most = 0

        async def get(self, key: str) -> bytes | None:
            self.now += 1
            self.most = max(self.most, self.now)
            self.asked.append(key)
            await asyncio.sleep(0.001)
            self.now -= 1
            return pack(PAGE)[:500] if self.asked.count(key) == 1 else PAGE

    archive = Garbled()
    async with served(archive, read_cache_loads_max=2) as http:
        plain = {"accept-encoding": "identity"}
        gets = [http.get(f"/api?key=items/lot-{number}/bids", headers=plain) for number in range(20)]
        answers = await asyncio.gather(*gets)
        assert {answer.status_code for answer in answers} == {200}
    assert (len(archive.asked), archive.most) == (40, 2)


@pytest.mark.parametrize("damaged", [pack(PAGE)[:500], pack(PAGE)[:20] + b"?" * 40], ids=["cut off", "garbled"])
async def test_a_damaged_value_costs_one_question_and_no_error(damaged: bytes) -> None:
    class DamagedOnce(Archive):
        async def get(self, key: str) -> bytes | None:
            await super().get(key)
            # It is short, so it is kept as it is; and it begins as what is packed does.
            return damaged if len(self.asked) == 1 else PAGE

    archive = DamagedOnce()
    async with served(archive) as http:
        for accepted in ("identity", "gzip", "gzip"):
            answer = await http.get("/api?key=items/lot/bids", headers={"accept-encoding": accepted})
            assert (answer.status_code, answer.content) == (200, PAGE)
    assert len(archive.asked) == 3, "the damaged one, the one in its place, and the one that is kept"


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *", False),
        ("*;q=0", False),
        ("", False),
        ("br", False),
    ],
)
def test_who_takes_gzip(accepted: str, takes: bool) -> None:
    assert _takes_gzip(accepted) is takes


async def test_a_slow_archive_sheds() -> None:
    """Some questions are asked, some wait, and the rest is refused at once; nobody waits without end."""
    archive = Archive()
    archive.may_answer.clear()
    async with served(archive, read_cache_loads_max=2, read_cache_waiting_max=3) as http:
        gets = [asyncio.create_task(http.get(f"/api?key=items/x{number}")) for number in range(20)]
        await eventually(lambda: sum(get.done() for get in gets) >= 15)
        assert len(archive.asked) == 2
        refused = [get.result() for get in gets if get.done()]
        assert {(answer.status_code, answer.headers["retry-after"]) for answer in refused} == {(503, "1")}
        archive.may_answer.set()
        statuses = [answer.status_code for answer in await asyncio.gather(*gets)]
        assert sorted(set(statuses)) == [404, 503]
        archive.is_away = True
        answer = await http.get("/api?key=items/y")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert (await http.get("/ready")).status_code == 503, "neither nodes nor the archive"


async def test_however_many_ask_whether_it_is_ready_postgresql_is_asked_once() -> None:
    archive = Archive()
    async with served(archive) as http:
        answers = await asyncio.gather(*(http.get("/ready") for _ in range(50)))
        assert {answer.status_code for answer in answers} == {200}
        assert archive.fetches == 1


async def test_the_answer_of_a_check_is_believed_for_half_a_second() -> None:
    archive, now_s = Archive(), 100.0
    check = ArchiveCheck(archive, clock=lambda: now_s)
    assert await check.trouble() is None
    archive.is_away = True
    now_s += CHECK_EVERY_S - 0.01
    assert await check.trouble() is None
    now_s += 0.01
    assert "cannot be asked" in (await check.trouble() or "")
    assert archive.fetches == 2


async def test_whoever_gives_up_ends_no_check_of_others() -> None:
    archive = Archive()
    check = ArchiveCheck(archive)
    impatient, patient = asyncio.create_task(check.trouble()), asyncio.create_task(check.trouble())
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient is None
    assert archive.fetches == 1


async def test_a_front_end_does_not_tell_where_nodes_are() -> None:
    """It answers anybody. A node, which listens where nobody else comes, tells it."""
    archive, ring = Archive(), Ring([Node("a", "10.0.0.7:8001")])
    settings = ReadCacheSettings(read_cache="local")
    async with open_read_cache(settings, groups(archive, never_unsettled)) as cache:
        cache.cluster = cast(Any, SimpleNamespace(view=lambda: View(3, ring, None)))
        for node, told in ((None, None), (ring.node("a"), "10.0.0.7:8001")):
            context = Context(node, cache, CachedReads(cache, archive), ArchiveCheck(archive), None)
            request = cast(Any, SimpleNamespace(state=SimpleNamespace(context=context)))
            body = json.loads(bytes((await endpoints.stats(request)).body))
            assert body["nodes"] == {"a": told}
            assert ("10.0.0.7" in json.dumps(body)) is (node is not None)
