"""Bytes of bodies in memory: bounds of all and of one address, and that each is given back."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from api_gateway.door.bodies import BodyBytes, TooManyBytes
from api_gateway.door.limits import BodyLimit
from api_gateway.door.rates import Rates
from shared.domain.errors import Overloaded
from shared.http.proxies import Proxies


def test_each_address_has_its_room_and_all_have_one() -> None:
    bodies = BodyBytes(100, 40)
    bodies.take("a", 40)
    with pytest.raises(TooManyBytes):
        bodies.take("a", 1)
    bodies.take("b", 40)
    with pytest.raises(Overloaded):
        bodies.take("c", 21)
    bodies.take("c", 20)
    assert (bodies.held, bodies.refused_total) == (100, 2)
    for address, count in (("a", 40), ("b", 40), ("c", 20)):
        bodies.give_back(address, count)
    assert (bodies.held, bodies._of_address) == (0, {})


def test_where_the_address_is_not_known_only_the_whole_counts() -> None:
    bodies = BodyBytes(100, 10)
    bodies.take("", 100)
    with pytest.raises(Overloaded):
        bodies.take("", 1)
    bodies.give_back("", 100)
    assert bodies.held == 0


class Uploads:
    """A gateway's bound on bodies, in front of an application that answers when a test says so."""

    def __init__(self, bodies: BodyBytes) -> None:
        self.bodies = bodies
        self.may_answer = asyncio.Event()
        self.read: list[int] = []
        self._app = BodyLimit(self._answer, bytes_max=100)
        self._context = SimpleNamespace(
            body_bytes=bodies, rates=Rates(per_caller=0, per_address=0, proxies=Proxies(""))
        )

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        self.read.append(len((await receive())["body"]))
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(self, *pieces: bytes, ends: bool = True, peer: str = "192.0.2.1") -> list[int]:
        messages: list[Any] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        messages[-1]["more_body"] = not ends
        messages.append({"type": "http.disconnect"})
        statuses: list[int] = []

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            if "status" in message:
                statuses.append(message["status"])

        scope = {"type": "http", "method": "POST", "path": "/x", "headers": [], "client": (peer, 1)}
        await self._app(scope | {"state": {"context": self._context}}, receive, send)
        return statuses


async def test_bodies_count_until_their_requests_are_answered() -> None:
    uploads = Uploads(BodyBytes(150, 100))
    first = asyncio.create_task(uploads.send(b"x" * 50, b"x" * 30))
    await asyncio.sleep(0.01)
    assert (uploads.bodies.held, uploads.read) == (80, [80])
    assert await uploads.send(b"x" * 30) == [429]
    assert await uploads.send(b"x" * 50, b"x" * 30, peer="192.0.2.2") == [503]
    assert uploads.bodies.held == 80, "what was read of the refused ones is given back"
    second = asyncio.create_task(uploads.send(b"x" * 70, peer="192.0.2.2"))
    await asyncio.sleep(0.01)
    assert uploads.bodies.held == 150
    uploads.may_answer.set()
    assert [await first, await second] == [[200], [200]]
    assert uploads.bodies.held == 0


async def test_what_was_read_of_a_client_that_goes_or_sends_too_much_is_given_back() -> None:
    uploads = Uploads(BodyBytes(1_000, 1_000))
    uploads.may_answer.set()
    assert await uploads.send(b"x" * 50, ends=False) == []
    assert await uploads.send(b"x" * 90, b"x" * 20) == [413]
    assert uploads.bodies.held == 0
