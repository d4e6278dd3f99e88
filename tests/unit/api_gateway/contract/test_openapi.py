"""The OpenAPI document as a generator of clients sees it. No server is needed: the application is asked in memory."""

from __future__ import annotations

import re
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import pytest_asyncio

from api_gateway.application import build_app
from api_gateway.hot_path import BID_BYTES_MAX, REFUSALS
from api_gateway.identity.access import NOBODY, TABLE
from api_gateway.settings import Settings
from shared.domain.auction import Status
from shared.domain.errors import BiddingError
from tests.documents.asyncapi import SchemaDocument
from tests.unit.api_gateway.contexts import with_context
from tests.unit.shared.identity.issuing import settings_of

Json = dict[str, Any]

_METHODS = {"get", "post", "put", "patch", "delete"}
_PROTOCOL = {"400", "408", "431", "500"}


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(with_context(build_app(Settings())))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


@pytest_asyncio.fixture
async def document(http: httpx.AsyncClient) -> Json:
    found: Json = (await http.get("/openapi.json")).json()
    return found


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, item in document["paths"].items():
        for method in _METHODS & item.keys():
            yield f"{method.upper()} {path}", item[method]


def schemas(node: Any, path: str = "$") -> Iterator[tuple[str, Json]]:
    """Every object of the document that is, or may be, a schema."""
    if isinstance(node, dict):
        yield path, node
        for name, each in node.items():
            if name not in ("example", "examples"):
                yield from schemas(each, f"{path}.{name}")
    elif isinstance(node, list):
        for number, each in enumerate(node):
            yield from schemas(each, f"{path}[{number}]")


async def test_the_head_tells_a_stranger_what_this_is(document: Json) -> None:
    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]
    info = document["info"]
    assert (info["version"], info["license"]["identifier"]) == (project["version"], project["license"])
    assert "no authentication" in info["description"]
    assert (document["servers"], document["security"]) == ([{"url": "/", "description": "This gateway"}], [])
    assert all(tag["description"] for tag in document["tags"])


async def test_with_tokens_the_document_says_where_one_is_needed(document: Json) -> None:
    settings = Settings(**settings_of().model_dump())
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(with_context(build_app(settings))), base_url="http://g"
    ) as http:
        guarded: Json = (await http.get("/openapi.json")).json()
    assert guarded["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert "no authentication" not in guarded["info"]["description"]
    for where, operation in operations(guarded):
        needs_one = NOBODY not in TABLE[operation["operationId"]]
        assert operation.get("security") == ([{"bearer": []}] if needs_one else None), where
        assert ({"401", "403"} <= operation["responses"].keys()) == needs_one, where
    for name in ("BidRequest", "BatchedBid", "FeedTokenBody"):
        required = [found["components"]["schemas"][name].get("required", []) for found in (document, guarded)]
        assert ["user_id" in each for each in required] == [True, False], name
    assert "securitySchemes" not in document["components"]
    assert not any("security" in operation or "401" in operation["responses"] for _, operation in operations(document))


async def test_every_operation_has_a_name_a_tag_and_a_text(document: Json) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    names = []
    for where, operation in operations(document):
        names.append(operation["operationId"])
        assert operation["summary"], where
        assert operation["description"], where
        assert set(operation["tags"]) <= tags, where
        for status, response in operation["responses"].items():
            assert response.get("description", "") != "Successful Response", (where, status)
    assert sorted(names) == [
        "approve_bidder", "approve_on_item", "block_bidder", "block_for_seller", "block_on_item", "cancel_item",
        "create_item", "create_items", "exchange_api_key", "extend_item", "get_acts", "get_audit", "get_bidder",
        "get_bidder_of_item", "get_bidder_of_seller", "get_dead_letters", "get_health", "get_history", "get_item",
        "get_me", "get_metrics", "get_named_bids",
        "get_overview", "get_readiness", "get_rulings", "get_spending", "get_verdict", "get_watch_list", "limit_bidder",
        "limit_on_item", "list_bidders", "list_bidders_of_item", "list_bidders_of_seller", "list_items",
        "list_items_of_seller", "list_own_bids", "make_feed_ticket", "make_feed_token",
        "make_sign_in_code", "pause_item", "place_bid", "place_bids", "require_approval", "resume_item",
        "revoke_tokens", "sign_in", "unapprove_bidder", "unapprove_on_item", "unblock_bidder", "unblock_for_seller",
        "unblock_on_item", "unlimit_bidder", "unlimit_on_item", "unwatch_item", "upload_image", "void_bid",
        "waive_approval", "watch_item",
    ]  # fmt: skip


async def test_every_answer_has_a_body_that_is_described(document: Json) -> None:
    reader = SchemaDocument(document)
    for where, operation in operations(document):
        responses = operation["responses"]
        assert set(responses) >= _PROTOCOL, where
        assert ("413" in responses) == ("requestBody" in operation), where
        for status, response in responses.items():
            described = reader.resolve(response["$ref"]) if "$ref" in response else response
            ((media_type, content),) = described["content"].items()
            assert content["schema"], (where, status)
            if int(status) >= 400 and (where, status) != ("GET /ready", "503"):
                assert media_type == "application/problem+json", (where, status)
                assert content["schema"] == {"$ref": "#/components/schemas/ProblemAnswer"}


async def test_what_is_busy_says_when_to_come_back(document: Json) -> None:
    unavailable = document["components"]["responses"]["Unavailable"]
    assert unavailable["headers"]["Retry-After"]["schema"] == {"type": "integer", "minimum": 1}


async def test_every_reference_leads_somewhere(document: Json) -> None:
    reader = SchemaDocument(document)
    references = {node["$ref"] for _, node in schemas(document) if "$ref" in node}
    assert references
    assert all(reader.resolve(reference) for reference in references)
    used = {reference.rpartition("/")[2] for reference in references}
    assert used == document["components"]["schemas"].keys() | document["components"]["responses"].keys()


async def test_every_parameter_has_bounds_and_a_text(document: Json) -> None:
    for where, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            schema = parameter["schema"]
            name = f"{where} {parameter['name']}"
            assert parameter["description"], name
            assert "null" not in str(schema), f"{name}: there is no null in an address"
            bounded = "$ref" in schema or "enum" in schema or "pattern" in schema or "maxLength" in schema
            bounded = bounded or schema.get("type") == "boolean"
            assert bounded or {"minimum", "maximum"} <= schema.keys(), name


async def test_generators_understand_every_schema(document: Json) -> None:
    """An enum without a type is dropped by one generator; a default makes a member compulsory in another."""
    for where, node in schemas(document):
        assert "enum" not in node or isinstance(node.get("type"), str | dict), where
        assert "default" not in node or ".parameters[" in where, where
        assert "example" not in node or "schema" in node, f"{where}: in a schema it is `examples`"
        description = node.get("description")
        if isinstance(description, str):
            assert re.search(r"\n +|``|:class:|[^\n]\n[^\n-]", description) is None, (where, description)
    verdicts = document["components"]["schemas"]
    assert verdicts["BidAcceptedAnswer"]["properties"]["success"]["const"] is True
    assert verdicts["BidRefusedAnswer"]["properties"]["success"]["const"] is False


async def test_every_member_of_an_answer_is_explained(document: Json) -> None:
    """Their names are short; what they count, and in which unit, stands beside them."""
    missing = [
        f"{name}.{member}"
        for name in (
            "BidAcceptedAnswer",
            "BidRefusedAnswer",
            "BidRequest",
            "ItemAnswer",
            "ProblemAnswer",
            "NewItemBody",
        )
        for member, schema in document["components"]["schemas"][name]["properties"].items()
        if not ({"description", "$ref", "const"} & schema.keys())
    ]
    assert missing == []


async def test_every_code_is_named(document: Json) -> None:
    components = document["components"]["schemas"]
    assert set(components["BidRefusedAnswer"]["properties"]["code"]["enum"]) == {*REFUSALS, "TOO_LOW"}
    assert components["Status"]["enum"] == sorted(status.value for status in Status)

    def errors(error: type[BiddingError]) -> Iterator[type[BiddingError]]:
        for each in error.__subclasses__():
            yield each
            yield from errors(each)

    modules = ("shared.domain", "shared.identity", "api_gateway")
    # Those that an answer can carry; other services, and tests, have errors of their own.
    codes = {each.code for each in errors(BiddingError) if each.__module__.startswith(modules)}
    assert len(codes) > 10
    assert codes <= set(re.findall(r"[A-Z][A-Z_]+", components["ProblemAnswer"]["description"]))


async def test_examples_are_as_their_schemas_say(document: Json) -> None:
    reader = SchemaDocument(document)
    seen = 0
    for where, node in schemas(document):
        found = [node["example"]] if "example" in node else node.get("examples", [])
        schema = node["schema"] if "example" in node else node
        for example in found:
            seen += 1
            assert reader.complaints(schema, example) == [], where
    assert seen > 10
    for where, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert "example" in content or content["schema"].get("format") == "binary", where


async def test_a_bid_needs_an_amount_or_a_maximum(document: Json) -> None:
    reader = SchemaDocument(document)
    schema = {"$ref": "#/components/schemas/BidRequest"}

    def fits(**members: Any) -> bool:
        return not reader.complaints(schema, {"user_id": "ann", **members})

    assert fits(amount=1)
    assert fits(max_amount=1.5)
    assert fits(amount=1, max_amount=None, bid_id=None)
    assert not fits()
    assert not fits(max_amount=None)
    assert not fits(amount=None, max_amount=2)
    assert not fits(amount=0)


async def test_the_size_of_a_bid_is_told(document: Json) -> None:
    assert str(BID_BYTES_MAX) in document["paths"]["/api/v1/items/{item_id}/bid"]["post"]["description"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("OPTIONS", "/api/v1/items", "GET, HEAD, POST"),
        ("DELETE", "/api/v1/items", "GET, HEAD, POST"),
        ("PUT", "/api/v1/items/lamp", "GET, HEAD"),
        ("GET", "/api/v1/items/lamp/pause", "POST"),
        ("HEAD", "/api/v1/feed-token", "POST"),
        ("POST", "/metrics", "GET, HEAD"),
        ("PUT", "/", "GET, HEAD"),
        ("PATCH", "/openapi.json", "GET, HEAD"),
    ],
)
async def test_a_method_that_does_not_fit_is_told_all_that_do(
    http: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
