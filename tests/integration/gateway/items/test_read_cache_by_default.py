"""What a gateway does about the read cache where nothing is set."""

from __future__ import annotations

import asyncio

import httpx2 as httpx
import pytest

from infrastructure.local.stack import Stack
from shared import names
from shared.clients.nats import NatsLink

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_it_has_one_of_its_own_and_follows_no_events(gateway_stack: Stack, http: httpx.AsyncClient) -> None:
    """Whoever follows the stream is sent every flush of every live item."""
    answer = await http.post("/api/v1/items/live/bid", json={"user_id": "ada", "amount": 5})
    assert answer.status_code == 201, answer.text
    pages = await asyncio.gather(*(http.get("/api/v1/items") for _ in range(20)))
    assert {page.status_code for page in pages} == {200}
    # An item that Redis does not have is asked for through the cache. Pages of the catalogue are not in its figures.
    missing = await http.get("/api/v1/bids/by-key/any", params={"item_id": "never-there"})
    assert missing.status_code == 404
    lines = (await http.get("/metrics")).text.splitlines()
    told = dict(line.split() for line in lines if line.startswith("bidding_cache_"))
    assert float(told["bidding_cache_gets_total"]) >= 1
    assert float(told["bidding_cache_loads_total"]) >= 1
    nats = NatsLink(gateway_stack.urls.nats_url, name="test")
    try:
        consumers = await (await nats.connected()).jetstream().consumers_info(names.STREAM)
    finally:
        await nats.close()
    # The archiver fetches; a follower, as cache nodes and broadcasters have one, names where it is to be told.
    assert names.ARCHIVER_DURABLE in [consumer.name for consumer in consumers]
    assert [consumer.name for consumer in consumers if consumer.config.deliver_subject] == []
