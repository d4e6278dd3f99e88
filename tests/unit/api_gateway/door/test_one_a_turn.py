"""The framework begins one request a turn, in their order, and others have their turns in between."""

from __future__ import annotations

import asyncio
from typing import Any

from api_gateway.door.one_a_turn import OneATurn


async def test_requests_begin_one_after_another_and_who_goes_loses_its_place() -> None:
    begun: list[int] = []
    turns: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope["number"])
        turns.append(turn)

    gate: Any = OneATurn(app)
    tasks = [asyncio.create_task(gate({"type": "http", "number": n}, None, None)) for n in range(6)]
    for turn in range(20):
        if turn == 1:
            tasks[3].cancel()
        await asyncio.sleep(0)
    assert begun == [0, 1, 2, 4, 5]
    assert len(set(turns)) == len(turns), "two began in one turn"
    # Nobody waits: the next one begins at once.
    await gate({"type": "http", "number": 9}, None, None)
    assert begun[-1] == 9


async def test_what_is_no_request_is_passed_on() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await OneATurn(app)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]
