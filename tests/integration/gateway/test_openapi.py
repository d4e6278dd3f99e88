"""Answers of a running gateway, of every operation, as its own OpenAPI document describes them."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import pytest
import pytest_asyncio

from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from tests.asyncapi import SchemaDocument
from tests.stack import StackFactory

pytestmark = pytest.mark.integration

Json = dict[str, Any]

SECRET = "a secret that is long enough for HS256"


class Stranger:
    """Knows of the platform what the document says: calls operations by name, and holds every answer against it."""

    def __init__(self, http: httpx.AsyncClient, document: Json) -> None:
        self._http = http
        self._reader = SchemaDocument(document)
        self._operations = {
            operation["operationId"]: (method, path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }
        self.answered: set[tuple[str, int]] = set()

    @property
    def operations(self) -> set[str]:
        return set(self._operations)

    def example(self, operation_id: str) -> Json:
        _, _, operation = self._operations[operation_id]
        found: Json = operation["requestBody"]["content"]["application/json"]["example"]
        return found

    async def call(self, operation_id: str, body: Json | None = None, **parameters: Any) -> httpx.Response:
        """Send it, and check status, content type, headers and body of the answer."""
        method, path, operation = self._operations[operation_id]
        places = {each["name"]: each["in"] for each in operation.get("parameters", ())}
        sent: dict[str, dict[str, str]] = {"path": {}, "query": {}, "header": {}}
        for name, value in parameters.items():
            sent[places[name]][name] = str(value)
        answer = await self._http.request(
            method, path.format(**sent["path"]), params=sent["query"], headers=sent["header"], json=body
        )
        self._check(operation_id, operation, answer)
        return answer

    def _check(self, operation_id: str, operation: Json, answer: httpx.Response) -> None:
        described = operation["responses"].get(str(answer.status_code))
        assert described is not None, f"{operation_id}: {answer.status_code} {answer.text}"
        if "$ref" in described:
            described = self._reader.resolve(described["$ref"])
        media_type = answer.headers["content-type"].partition(";")[0]
        assert media_type in described["content"], operation_id
        for name, header in described.get("headers", {}).items():
            assert name in answer.headers or not header.get("required", False), f"{operation_id}: {name}"
        value = answer.json() if media_type.endswith("json") else answer.text
        complaints = self._reader.complaints(described["content"][media_type]["schema"], value)
        assert complaints == [], f"{operation_id}: {complaints}"
        self.answered.add((operation_id, answer.status_code))


@pytest_asyncio.fixture
async def stack(start_stack: StackFactory) -> Stack:
    settings = {
        "OPEN_CATALOGUE": "false",
        "OPEN_IDENTITY": "true",
        "FEED_TOKEN_SECRET": "long enough for a signature: yes",
    }
    return await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER), env=settings)


async def test_every_operation_answers_as_its_document_says(stack: Stack) -> None:
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as http:
        stranger = Stranger(http, (await http.get("/openapi.json")).json())
        await well(stranger)
        await unwell(stranger)
        await stack.stop_process("redis")
        await alone(stranger)
        assert {operation for operation, _ in stranger.answered} == stranger.operations
        assert {status for _, status in stranger.answered} == {200, 201, 404, 409, 413, 422, 503}


async def well(stranger: Stranger) -> None:
    """What `/docs` offers to send succeeds, in the order in which one would try it."""
    call, example = stranger.call, stranger.example
    created = await call("create_item", example("create_item"))
    item_id = created.json()["id"]
    assert created.headers["location"] == f"/api/v1/items/{item_id}"
    bid = await call("place_bid", example("place_bid"), item_id=item_id, **{"Idempotency-Key": "first/one?"})
    assert bid.status_code == 201
    assert (await call("get_verdict", key="first%2Fone%3F", item_id=item_id)).content == bid.content
    refused = await call("place_bid", example("place_bid") | {"user_id": "bob"}, item_id=item_id)
    assert (refused.status_code, refused.json()["code"]) == (200, "TOO_LOW")
    # Null, for who fills in a form: the same as absence.
    higher = {"user_id": "bob", "amount": 19, "max_amount": None, "bid_id": None}
    lifted = await call("place_bid", higher, item_id=item_id)
    assert lifted.json()["success"]
    assert (await call("get_item", item_id=item_id)).json()["highest_bidder_id"] == "bob"
    page = (await call("get_history", item_id=item_id, limit=1)).json()
    assert len((await call("get_history", item_id=item_id, limit=1, cursor=page["next_cursor"])).json()["bids"]) == 1
    await call("void_bid", example("void_bid"), item_id=item_id, bid_id=lifted.json()["bid_id"])
    for operation in ("pause_item", "resume_item", "cancel_item"):
        await call(operation, example(operation), item_id=item_id)
    for increment, currency in (
        ({"kind": "percent", "value": 2.5}, "JPY"),
        ({"kind": "ladder"}, "KWD"),
        ({"kind": "ladder", "steps": [{"increment": 1, "below": 10}, {"increment": 2}]}, "EUR"),
        (None, "USD"),
    ):
        await call("create_item", {"name": "A vase", "increment": increment, "currency": currency, "start_price": None})
    await call("list_items", limit=2, sort="ending")
    for operation in ("get_health", "get_readiness", "get_metrics"):
        await call(operation)
    token = await call("make_feed_token", example("make_feed_token"))
    assert token.headers["cache-control"] == "no-store"


async def unwell(stranger: Stranger) -> None:
    """Every kind of refusal that one can ask for."""
    call = stranger.call
    long = "x" * 100_000
    for operation, body in (
        ("get_item", None),
        ("get_history", None),
        ("place_bid", {"user_id": "ann", "amount": 1}),
        ("pause_item", {"reason": "none"}),
    ):
        assert (await call(operation, body, item_id="nobody-sells-it")).status_code == 404
        assert (await call(operation, body, item_id="no id")).status_code == 422
    assert (await call("create_item", {"name": "A vase", "id": "vase"})).status_code == 201
    assert (await call("create_item", {"name": "A vase", "id": "vase"})).status_code == 409
    assert (await call("resume_item", {"reason": "it is not paused"}, item_id="vase")).status_code == 409
    assert (await call("get_verdict", key="never", item_id="vase")).status_code == 404
    assert (await call("void_bid", {"reason": "x"}, item_id="vase", bid_id="never")).status_code == 404
    assert (await call("list_items", status="lost")).status_code == 422
    assert (await call("get_history", item_id="vase", cursor="7")).status_code == 422
    assert (await call("make_feed_token", {"user_id": "white space"})).status_code == 422
    assert (await call("create_item", {"name": "A vase", "start_price": 0.001})).json()["field"] == "start_price"
    for operation in ("create_item", "make_feed_token"):
        assert (await call(operation, {"name": long})).status_code == 413
    for operation in ("place_bid", "pause_item"):
        assert (await call(operation, {"reason": long}, item_id="vase")).status_code == 413


async def alone(stranger: Stranger) -> None:
    """Redis is away."""
    for operation, body in (("get_item", None), ("place_bid", stranger.example("place_bid"))):
        answer = await stranger.call(operation, body, item_id="vase")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (await stranger.call("get_readiness")).status_code == 503
    assert (await stranger.call("get_health")).status_code == 200
