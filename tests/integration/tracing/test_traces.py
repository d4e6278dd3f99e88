"""Traces of bids through a whole platform, as a collector gets them."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import httpx2 as httpx
import nats
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from infrastructure.local.processes import ProcessSpec
from infrastructure.local.servers.ports import HOST, free_ports
from infrastructure.local.services import API_GATEWAY
from infrastructure.local.stack import Stack
from shared import names
from shared.messages import decode_batch
from shared.tracing.spans import TRACES_HEADER
from tests.integration.tracing.collector import Collector, Sent, collecting
from tests.programs import accepts, running_server
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

STEPS = ["wait", "decide", "publish", "show", "store rows"]
FACTS = {
    "bidding.bid_id",
    "bidding.dead_letters",
    "bidding.entry",
    "bidding.flush.bids",
    "bidding.flush.items",
    "bidding.frame",
    "bidding.item_id",
    "bidding.rows",
    "bidding.shard",
    "bidding.verdict",
    "bidding.viewers",
    "db.system.name",
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "messaging.destination.name",
    "messaging.operation.type",
    "messaging.system",
}
WAIT_S = 60.0


class World(NamedTuple):
    """A platform whose spans go to a collector, and a client of it."""

    stack: Stack
    collector: Collector
    http: httpx.AsyncClient


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(clean_machine: None) -> AsyncIterator[World]:
    factory = StackFactory()
    async with collecting() as collector:
        # Nobody is sampled but who asks for it, and is believed.
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_TRACES_SAMPLER": "parentbased_always_off",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "LOG_FORMAT": "json",
            "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
        }
        try:
            stack = await factory(env=env)
            async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=WAIT_S) as http:
                yield World(stack, collector, http)
        finally:
            await factory.close()


def new_trace(*, sampled: bool = True) -> tuple[str, str]:
    """A trace id, and the header that a caller sends with it."""
    trace_id = secrets.token_hex(16)
    return trace_id, f"00-{trace_id}-{secrets.token_hex(8)}-{int(sampled):02x}"


async def bid(world: World, item: str, traceparent: str = "", *, amount: float = 5, **headers: str) -> dict[str, Any]:
    if traceparent:
        headers["traceparent"] = traceparent
    body = {"user_id": f"u{secrets.token_hex(4)}", "amount": amount}
    answer = await world.http.post(f"/api/v1/items/{item}/bid", json=body, headers=headers)
    assert answer.status_code in (200, 201), answer.text
    told: dict[str, Any] = answer.json()
    return told


async def known(world: World, item: str) -> None:
    """Make the item known to the gateway, which then answers bids on it at once: by a bid that nobody traces."""
    assert (await bid(world, item, amount=1))["success"]


async def whole(
    world: World, trace_id: str, last: str = "store rows", steps: int = 1, *, seconds: float = WAIT_S
) -> list[Sent]:
    """The spans of a trace, once it has its request and so many of its last steps. Each process sends its own, when it
    likes."""

    def is_there() -> bool:
        found = [span.name for span in world.collector.of(trace_id)]
        has_steps = min(found.count(last), found.count("publish"), found.count("decide")) >= steps
        return has_steps and any(name.startswith("POST ") for name in found)

    await eventually(is_there, f"a whole trace {trace_id}", seconds=seconds)
    return world.collector.of(trace_id)


class Watching:
    """A viewer of one item, who has its first snapshot."""

    def __init__(self, world: World, item: str) -> None:
        url = world.stack.urls.broadcast_url.replace("http", "ws", 1)
        self._socket = connect(f"{url}/ws/items/{item}", proxy=None)

    async def __aenter__(self) -> Watching:
        self.connection = await self._socket.__aenter__()
        while json.loads(await asyncio.wait_for(self.connection.recv(), WAIT_S))["type"] != "snapshot":
            pass
        return self

    async def __aexit__(self, *of_error: Any) -> None:
        await self._socket.__aexit__(*of_error)


async def test_one_bid_is_one_trace_from_http_to_the_frame_and_the_row(world: World) -> None:
    await known(world, "one")
    trace_id, traceparent = new_trace()
    async with Watching(world, "one"):
        told = await bid(world, "one", traceparent)
        await whole(world, trace_id, "show")
        spans = await whole(world, trace_id)
    by_name = {span.name: span for span in spans}
    assert len(by_name) == len(spans) == 6, spans
    request = by_name["POST /api/v1/items/{item_id}/bid"]
    wait, decide, publish, show, store = (by_name[name] for name in STEPS)
    assert request.parent_id == traceparent.split("-")[2]
    assert {wait.parent_id, decide.parent_id} == {request.span_id}
    assert publish.parent_id == decide.span_id
    assert {show.parent_id, store.parent_id} == {publish.span_id}
    assert {span.service for span in (request, wait, decide, publish)} == {"api-gateway"}
    assert (show.service, store.service) == ("broadcast-service", "archival-worker")
    # One machine, one clock.
    assert request.begins_ns <= wait.begins_ns <= wait.ends_ns == decide.begins_ns <= decide.ends_ns
    assert decide.ends_ns <= publish.begins_ns <= min(publish.ends_ns, show.begins_ns, store.begins_ns)
    assert all(span.begins_ns <= span.ends_ns for span in spans)
    assert request.facts["bidding.bid_id"] == decide.facts["bidding.bid_id"] == told["bid_id"]
    assert request.facts["http.response.status_code"] == 201
    assert decide.facts["bidding.verdict"] == "ACCEPTED"
    assert {span.facts.get("bidding.item_id", "one") for span in spans} == {"one"}
    assert show.facts["bidding.viewers"] == store.facts["bidding.rows"] == 1
    connection = await asyncpg.connect(world.stack.urls.postgres_url)
    try:
        row = await connection.fetchrow("SELECT * FROM bids WHERE bid_id = $1", told["bid_id"])
    finally:
        await connection.close()
    assert row is not None


async def test_whom_nobody_samples_and_whom_nobody_believes_is_not_traced(world: World) -> None:
    await known(world, "none")
    before = len(world.collector.spans)
    unsampled, said_no = new_trace(sampled=False)
    strange, of_a_stranger = new_trace()
    await bid(world, "none", said_no, amount=5)
    await bid(world, "none", amount=6)
    # A client that speaks for somebody else and is no proxy of ours is a stranger.
    await bid(world, "none", of_a_stranger, amount=7, **{"x-forwarded-for": "192.0.2.7"})
    await bid(world, "none", "00-nonsense", amount=8)
    trace_id, traceparent = new_trace()
    await bid(world, "none", traceparent, amount=9)
    await whole(world, trace_id)
    assert {span.trace_id for span in world.collector.spans[before:]} == {trace_id}
    assert not {unsampled, strange} & {span.trace_id for span in world.collector.spans}


@pytest.mark.parametrize("road", ["new item", "asgi", "batch"])
async def test_bids_of_every_road_are_traced(world: World, road: str) -> None:
    item = f"road-{road.replace(' ', '-')}"
    trace_id, traceparent = new_trace()
    headers = {"traceparent": traceparent, "content-type": "application/json"}
    if road == "batch":
        await known(world, item)
        bids = [{"item_id": item, "user_id": "ada", "amount": 5 + at} for at in range(3)]
        answer = await world.http.post("/api/v1/bids:batch", json={"bids": bids}, headers=headers)
        assert [each["status"] for each in answer.json()["results"]] == [201, 201, 201]
        spans = await whole(world, trace_id, steps=3)
        assert [span.name for span in spans].count("decide") == 3
        # They are one message.
        assert len({span.facts["bidding.entry"] for span in spans if span.name == "publish"}) == 1
        assert spans[0].facts["http.route"] == "/api/v1/bids:batch"
        return

    async def in_pieces() -> AsyncIterator[bytes]:
        yield b'{"user_id": "ada", '
        yield b'"amount": 5}'

    if road == "asgi":
        await known(world, item)
    content = in_pieces() if road == "asgi" else b'{"user_id": "ada", "amount": 5}'
    answer = await world.http.post(f"/api/v1/items/{item}/bid", content=content, headers=headers)
    assert answer.status_code == 201, answer.text
    spans = await whole(world, trace_id)
    assert spans[0].name == "POST /api/v1/items/{item_id}/bid"
    assert {"wait", "decide", "publish", "store rows"} <= {span.name for span in spans}
    assert spans[0].facts["http.response.status_code"] == 201


async def test_a_bid_that_another_gateway_relays_is_one_trace_too(world: World) -> None:
    """The first gateway has the leases of all shards, and keeps them."""
    (port,) = free_ports(1)
    spec = ProcessSpec(
        name="second-gateway",
        argv=(sys.executable, "-P", "-m", API_GATEWAY),
        env=world.stack.service_env | {"GATEWAY_PORT": str(port), "OTEL_SERVICE_NAME": "second"},
        log=world.stack.log_path("second-gateway"),
        ready=accepts(port),
        address=f"{HOST}:{port}",
    )
    async with running_server(spec), httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=WAIT_S) as second:

        async def traced() -> list[Sent]:
            # A shard is looked at four times a second anyway, perhaps just before the hint is there.
            trace_id, traceparent = new_trace()
            body = {"user_id": "ada", "amount": 5}
            item = f"second-{secrets.token_hex(4)}"
            answer = await second.post(f"/api/v1/items/{item}/bid", json=body, headers={"traceparent": traceparent})
            assert answer.status_code == 201, answer.text
            try:
                return await whole(world, trace_id, seconds=10)
            except TimeoutError:
                return []

        spans = await eventually(traced, "a whole trace", seconds=WAIT_S)
    services = {span.name: span.service for span in spans}
    assert services["decide"] == "second"
    assert services["publish"] == "api-gateway"
    assert services["store rows"] == "archival-worker"


async def test_a_refused_bid_ends_with_the_script(world: World) -> None:
    await bid(world, "refused", amount=50)
    trace_id, traceparent = new_trace()
    told = await bid(world, "refused", traceparent, amount=5)
    assert told["code"] == "TOO_LOW"
    await eventually(lambda: len(world.collector.of(trace_id)) == 3, seconds=WAIT_S)
    later, traceparent = new_trace()
    await bid(world, "refused", traceparent, amount=90)
    await whole(world, later)
    request, wait, decide = world.collector.of(trace_id)
    assert (wait.name, decide.name) == ("wait", "decide")
    assert request.facts["bidding.verdict"] == decide.facts["bidding.verdict"] == "TOO_LOW"
    assert request.facts["http.response.status_code"] == 200


async def test_nothing_that_is_kept_knows_of_traces(world: World) -> None:
    trace_id, traceparent = new_trace()
    told = await bid(world, "kept", traceparent)
    await whole(world, trace_id)
    client = await nats.connect(world.stack.urls.nats_url)
    try:
        message = await client.jetstream().get_last_msg(names.STREAM, names.subject_of("kept"))
    finally:
        await client.close()
    assert message.headers is not None
    assert message.data is not None
    batch = decode_batch(message.data)
    # What the message is known by is made of what it was without traces.
    expected = names.message_id(batch.shard, batch.shard_epoch, batch.n, message.data)
    assert message.headers["Nats-Msg-Id"] == expected
    assert trace_id in message.headers[TRACES_HEADER]
    assert trace_id.encode() not in message.data
    connection = await asyncpg.connect(world.stack.urls.postgres_url)
    try:
        rows = [
            *await connection.fetch("SELECT bids::text FROM bids WHERE item_id = 'kept'"),
            *await connection.fetch("SELECT events::text FROM events WHERE item_id = 'kept'"),
            *await connection.fetch("SELECT sealed::text FROM sealed WHERE item_id = 'kept'"),
        ]
    finally:
        await connection.close()
    assert any(told["bid_id"] in row[0] for row in rows)
    assert not any(trace_id in row[0] for row in rows)
    redis = Redis.from_url(world.stack.urls.redis_url)
    try:
        kept = [await redis.dump(key) async for key in redis.scan_iter(match="*kept*")]
    finally:
        await redis.aclose()
    assert kept
    assert not any(trace_id.encode() in value for value in kept if value)


async def test_no_span_tells_who_bids_or_how_much(world: World) -> None:
    await known(world, "secret")
    trace_id, traceparent = new_trace()
    user, key = f"user-{secrets.token_hex(8)}", f"key-{secrets.token_hex(8)}"
    body = {"user_id": user, "amount": 7_654_321.25, "max_amount": 8_765_432.5}
    headers = {"traceparent": traceparent, "idempotency-key": key, "authorization": f"Bearer {secrets.token_hex(8)}"}
    async with Watching(world, "secret"):
        answer = await world.http.post("/api/v1/items/secret/bid", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        await whole(world, trace_id, "show")
        await whole(world, trace_id)
    for secret in (user, key, headers["authorization"].split()[1], "7654321", "8765432"):
        assert secret.encode() not in world.collector.bodies
    facts = [span.facts for span in world.collector.spans]
    assert {name for each in facts for name in each} == FACTS
    assert not {7_654_321_25, 8_765_432_50} & {value for each in facts for value in each.values()}


async def test_nothing_else_is_sent(world: World) -> None:
    """FastAPI has telemetry of its own, which the variables of this platform switch on."""
    await known(world, "quiet")
    trace_id, traceparent = new_trace()
    listing = await world.http.get("/api/v1/items", headers={"traceparent": traceparent})
    assert listing.status_code == 200
    later, traceparent = new_trace()
    await bid(world, "quiet", traceparent)
    await whole(world, later)
    assert world.collector.of(trace_id) == []
    assert world.collector.paths == {"/v1/traces"}


async def test_a_line_in_the_log_names_the_trace(world: World) -> None:
    trace_id, traceparent = new_trace()
    await known(world, "logged")
    async with Watching(world, "logged"):
        client = await nats.connect(world.stack.urls.nats_url)
        try:
            await client.jetstream().publish(names.subject_of("logged"), b"?", headers={TRACES_HEADER: traceparent})
        finally:
            await client.close()

        def said() -> bool:
            path = Path(world.stack.data_dir) / "logs" / "broadcast_service.log"
            lines = [json.loads(line) for line in path.read_text().splitlines() if line.startswith('{"time"')]
            return any(line.get("trace_id") == trace_id and "cannot be read" in line["message"] for line in lines)

        await eventually(said, "the trace in the log", seconds=WAIT_S)


async def test_bids_go_on_while_the_collector_refuses_everything(world: World) -> None:
    await known(world, "deaf")
    world.collector.is_well = False
    try:
        lost = [new_trace() for _ in range(40)]
        for at, (_, traceparent) in enumerate(lost):
            assert (await bid(world, "deaf", traceparent, amount=5 + at))["success"]
        await eventually(lambda: world.collector.refused > 0, "it was asked", seconds=WAIT_S)
    finally:
        world.collector.is_well = True
    trace_id, traceparent = new_trace()
    assert (await bid(world, "deaf", traceparent, amount=500))["success"]
    await whole(world, trace_id)
    log = (Path(world.stack.data_dir) / "logs" / "api_gateway.log").read_text()
    assert 0 < log.count('"message":"traces: ') <= 3, "it is told of, and not once per batch"
