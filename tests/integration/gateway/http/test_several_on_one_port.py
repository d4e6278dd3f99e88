"""Several gateways on one port, as ``bidding up --gateways 3`` starts them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal

import httpx2 as httpx
import pytest
from click.testing import CliRunner

from infrastructure.local.commands.platform.up import up
from infrastructure.local.servers.ports import Ports
from infrastructure.local.services import API_GATEWAY, process_names, service_of
from infrastructure.local.stack import Stack
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

_CLIENTS = 24
_BIDS_EACH = 5
_DECIDED = re.compile(r"^bidding_bids_decided_total (\S+)$", re.MULTILINE)


async def decided(address: str) -> int:
    """How many bids the gateway has decided that listens there alone."""
    async with httpx.AsyncClient(base_url=address, timeout=30) as client:
        found = _DECIDED.search((await client.get("/metrics")).text)
    assert found is not None
    return int(float(found[1]))


async def test_each_takes_bids_and_when_one_ends_the_others_go_on(gateway_stack: Stack) -> None:
    stack = Stack(
        gateway_stack.data_dir / "shared",
        ports=Ports.free(),
        services=(API_GATEWAY,),
        migrate=False,
        redis_url=gateway_stack.urls.redis_url,
        nats_url=gateway_stack.urls.nats_url,
        postgres_url=gateway_stack.urls.postgres_url,
        gateways=3,
    )
    async with stack, contextlib.AsyncExitStack() as opened:
        assert tuple(stack.processes) == process_names(API_GATEWAY, 3)
        clients = [
            await opened.enter_async_context(httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30))
            for _ in range(_CLIENTS)
        ]

        async def bids(number: int, client: httpx.AsyncClient) -> list[int]:
            """On one connection, each with an answer before the next."""
            seqs = []
            for amount in range(1, _BIDS_EACH + 1):
                body = {"user_id": f"u{number}", "amount": amount}
                answer = await client.post(f"/api/v1/items/shared-{number}/bid", json=body)
                assert answer.status_code == 201, answer.text
                seqs.append(answer.json()["seq"])
            return seqs

        told = await asyncio.gather(*(bids(number, client) for number, client in enumerate(clients)))
        assert told == [list(range(1, _BIDS_EACH + 1))] * _CLIENTS
        counts = [await decided(process.spec.address) for process in stack.processes.values()]
        assert sum(counts) == _CLIENTS * _BIDS_EACH
        # All connections go to the same one of three with a probability of 1 in 3^23.
        assert max(counts) < sum(counts)

        stack.kill(f"{API_GATEWAY}-2", signal.SIGTERM)
        assert await stack.wait_ended(f"{API_GATEWAY}-2")

        async def is_taken() -> bool:
            # A connection that the one that ended had accepted is closed; its client makes another.
            with contextlib.suppress(httpx.TransportError):
                answer = await clients[0].get("/ready")
                return answer.status_code == 200
            return False

        await eventually(is_taken)
        for number in range(6):
            async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as client:
                answer = await client.post("/api/v1/items/shared-0/bid", json={"user_id": "v", "amount": 10 + number})
                assert answer.status_code == 201, answer.text


async def test_a_process_is_one_of_its_service() -> None:
    assert [service_of(name) for name in process_names(API_GATEWAY, 3)] == [API_GATEWAY] * 3
    assert [service_of(name) for name in ("redis", "cache_node-2", "api_gateway-x")] == [
        "redis",
        "cache_node-2",
        "api_gateway-x",
    ]


@pytest.mark.parametrize("count", ["0", "17", "many"])
async def test_how_many_may_be_wanted(count: str) -> None:
    result = CliRunner().invoke(up, ["--gateways", count])
    assert result.exit_code == 2
    assert "--gateways" in result.output
