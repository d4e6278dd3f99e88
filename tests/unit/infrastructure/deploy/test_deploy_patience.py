"""A deployment that gets no answer, or nonsense: how long it waits, and that it says so instead of breaking off."""

from __future__ import annotations

import asyncio

import pytest

from infrastructure.deploy import ecs
from infrastructure.deploy.ecs import Patience
from infrastructure.deploy.smoke import problems
from infrastructure.local.servers.ports import HOST
from shared.aws.clients import AwsError
from tests.tcp import serving


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b""])
async def test_an_answer_that_is_none_is_a_problem_and_no_error(answer: bytes) -> None:
    """Another error than `Unverified` would leave the bad version where it is."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with serving(handle) as port:
        said = await asyncio.to_thread(lambda: list(problems(f"http://{HOST}:{port}")))
    assert [line.partition(":")[0] for line in said] == [
        "/health",
        "/ready",
        "/api/v1/items?limit=1",
        "/stats/items/deploy-check",
    ]


def test_a_call_that_fails_is_left_out_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = Patience()
    for _ in range(3):
        with patience:
            raise AwsError("Rate exceeded")
        assert patience.is_tried
    with patience:
        pass
    assert not patience.is_tried
    monkeypatch.setattr(ecs, "UNANSWERED_S", -1.0)
    with pytest.raises(AwsError), patience:
        raise AwsError("Rate exceeded")


def test_what_is_no_refusal_of_aws_is_not_left_out() -> None:
    with pytest.raises(KeyError), Patience():
        raise KeyError
