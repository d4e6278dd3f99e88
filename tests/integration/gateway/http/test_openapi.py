"""Answers of a running gateway, of every operation, as its own OpenAPI document describes them."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import pytest
import pytest_asyncio

from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from tests.documents.asyncapi import SchemaDocument
from tests.stack import StackFactory
from tests.unit.api_gateway.images.pictures import jpeg, png
from tests.waiting import eventually

pytestmark = pytest.mark.integration

Json = dict[str, Any]

SECRET = "a secret that is long enough for HS256"


class Stranger:
    """A client that knows only the document: it calls operations by name, and compares every answer with it."""

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

    async def call(self, operation_id: str, body: Json | bytes | None = None, **parameters: Any) -> httpx.Response:
        """Send it, and check status, content type, headers and body of the answer."""
        method, path, operation = self._operations[operation_id]
        places = {each["name"]: each["in"] for each in operation.get("parameters", ())}
        sent: dict[str, dict[str, str]] = {"path": {}, "query": {}, "header": {}}
        for name, value in parameters.items():
            sent[places[name]][name] = str(value)
        content: dict[str, Any] = {"json": body}
        if isinstance(body, bytes):
            content = {"content": body}
            sent["header"]["content-type"] = next(iter(operation["requestBody"]["content"]))
        answer = await self._http.request(
            method, path.format(**sent["path"]), params=sent["query"], headers=sent["header"], **content
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
        assert {status for _, status in stranger.answered} == {200, 201, 403, 404, 409, 413, 415, 422, 503}


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
    # Null, as a form sends it: the same as absence.
    higher = {"user_id": "bob", "amount": 19, "max_amount": None, "bid_id": None}
    lifted = await call("place_bid", higher, item_id=item_id)
    assert lifted.json()["success"]
    assert (await call("get_item", item_id=item_id)).json()["highest_bidder_id"] == "bob"
    page = (await call("get_history", item_id=item_id, limit=1)).json()
    assert len((await call("get_history", item_id=item_id, limit=1, cursor=page["next_cursor"])).json()["bids"]) == 1
    await call("void_bid", example("void_bid"), item_id=item_id, bid_id=lifted.json()["bid_id"])
    await rule(stranger, item_id)
    for operation in ("pause_item", "resume_item", "extend_item", "cancel_item"):
        await call(operation, example(operation), item_id=item_id)
    for increment, currency in (
        ({"kind": "percent", "value": 2.5}, "JPY"),
        ({"kind": "ladder"}, "KWD"),
        ({"kind": "ladder", "steps": [{"increment": 1, "below": 10}, {"increment": 2}]}, "EUR"),
        (None, "USD"),
    ):
        await call("create_item", {"name": "A vase", "increment": increment, "currency": currency, "start_price": None})
    await call("list_items", limit=2, sort="ending")
    batch = await call("place_bids", example("place_bids"))
    assert [one["status"] for one in batch.json()["results"]] == [404, 404]
    for dry_run, statuses in ((True, [200, 200]), (False, [201, 201]), (False, [409, 409])):
        items = await call("create_items", example("create_items") | {"dry_run": dry_run})
        assert [one["status"] for one in items.json()["results"]] == statuses
    for operation in ("get_health", "get_readiness", "get_metrics"):
        await call(operation)
    uploaded = await call("upload_image", jpeg())
    assert uploaded.headers["location"] == uploaded.json()["url"]
    pictured = await call("create_item", {"name": "A vase", "image_urls": [uploaded.json()["url"]]})
    assert pictured.json()["image_urls"] == [uploaded.json()["url"]]
    for secret in ("make_feed_ticket", "make_feed_token"):
        assert (await call(secret, example(secret))).headers["cache-control"] == "no-store"
    named = (await call("get_named_bids", item_id=item_id)).json()["bids"]
    assert {bid["user_id"] for bid in named} == {"ann", "bob"}

    async def is_archived() -> bool:
        return len((await call("get_audit", item_id=item_id)).json()["operations"]) == 5

    await eventually(is_archived)
    for operation in ("get_me", "get_overview", "get_dead_letters", "get_rulings", "get_acts"):
        await call(operation)


async def rule(stranger: Stranger, item_id: str) -> None:
    """Rule on who may bid, with the document's examples and without a body."""
    call, example = stranger.call, stranger.example
    on_item: dict[str, Any] = {"item_id": item_id, "user_id": "cyd"}
    for operation in ("approve_on_item", "block_on_item", "limit_on_item"):
        await call(operation, example(operation), **on_item)
    await call("approve_on_item", **on_item)
    ruled = (await call("get_bidder_of_item", **on_item)).json()
    assert (ruled["may_bid"], ruled["refusal"], ruled["approved"], ruled["limit"]) == (False, "BLOCKED", True, 500)
    [listed] = (await call("list_bidders_of_item", item_id=item_id, limit=1)).json()["bidders"]
    assert listed == {"user_id": "cyd", "approved": True, "blocked": True, "limit": 500}
    for operation in ("unapprove_on_item", "unblock_on_item", "unlimit_on_item"):
        await call(operation, reason="so be it", by="olga", **on_item)
    assert (await call("get_bidder_of_item", **on_item)).json()["may_bid"] is True
    for operation in ("approve_bidder", "block_bidder"):
        await call(operation, example(operation), user_id="cyd")
    limited = (await call("limit_bidder", example("limit_bidder"), user_id="cyd")).json()
    assert limited == {"user_id": "cyd", "currency": "USD", "limit": 5000, "committed": 0, "remaining": 5000}
    assert (await call("get_spending", user_id="cyd", currency="EUR")).json()["limit"] is None
    await call("unlimit_bidder", user_id="cyd", currency="USD", reason="paid")
    await call("block_for_seller", example("block_for_seller"), seller_id="sam", user_id="cyd")
    assert len((await call("list_bidders", limit=5)).json()["bidders"]) == 1
    assert (await call("list_items_of_seller", seller_id="sam", status="open", limit=5)).status_code == 200
    assert len((await call("list_bidders_of_seller", seller_id="sam", limit=5)).json()["bidders"]) == 1
    assert (await call("get_bidder_of_seller", seller_id="sam", user_id="cyd")).json()["blocked"] is True
    await call("require_approval", example("require_approval"))
    told = (await call("get_bidder", user_id="cyd")).json()
    assert told == {"user_id": "cyd", "seller_id": None, "approved": True, "blocked": True, "approval_required": True}
    await call("waive_approval", reason="it is over")
    await call("unblock_for_seller", seller_id="sam", user_id="cyd")
    for operation in ("unapprove_bidder", "unblock_bidder"):
        await call(operation, user_id="cyd")


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
    assert (await call("upload_image", png())).status_code == 415  # sent as the first type
    assert (await call("upload_image", jpeg()[:-2])).status_code == 422
    assert (await call("upload_image", jpeg() + bytes(9 * 1024**2))).status_code == 413
    assert (await call("get_history", item_id="vase", cursor="7")).status_code == 422
    assert (await call("make_feed_token", {"user_id": "white space"})).status_code == 422
    assert (await call("make_feed_ticket", {"user_id": "white space"})).status_code == 422
    assert (await call("get_named_bids", item_id="nobody-sells-it")).status_code == 404
    assert (await call("get_audit", item_id="no id")).status_code == 422
    assert (await call("get_dead_letters", limit=0)).status_code == 422
    assert (await call("get_acts", before=0)).status_code == 422
    assert (await call("sign_in", stranger.example("sign_in"))).status_code == 404
    assert (await call("make_sign_in_code")).status_code == 403, "with AUTH_MODE=open nobody signs in"
    for operation in ("get_watch_list", "list_own_bids"):
        assert (await call(operation)).json()["code"] == "IDENTITY_REQUIRED", operation
    for operation in ("watch_item", "unwatch_item"):
        assert (await call(operation, item_id="priced")).json()["code"] == "IDENTITY_REQUIRED", operation
    assert (await call("create_item", {"name": "A vase", "start_price": 0.001})).json()["field"] == "start_price"
    # Without tokens there is nothing to revoke, and none to be given.
    assert (await call("revoke_tokens", {"user_id": "ann"})).status_code == 409
    assert (await call("exchange_api_key")).status_code == 503
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
