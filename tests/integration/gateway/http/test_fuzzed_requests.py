"""Requests made from the OpenAPI document, as it allows them and as it does not: no server error, each answer as it is
described, and nothing done without a token that is good. `FUZZ=500` tries more of each."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, cast

import jwt
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api_gateway.door.strangers import TOKEN_PATH
from api_gateway.identity.access import NOBODY, TABLE
from infrastructure.local.services import API_GATEWAY
from infrastructure.local.signing_key import signed_token, signing_key
from infrastructure.local.stack import Stack
from tests.stack import StackFactory

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES: Final = int(os.environ.get("FUZZ", "15"))
"""Requests of each operation, as many that the document allows as others."""
UNLIMITED: Final = {"GATEWAY_CALLER_RATE_MAX": "0", "GATEWAY_ADDRESS_RATE_MAX": "0"}
CHECKS: Final = [status_code_conformance, content_type_conformance, response_schema_conformance]
Operation = schemathesis.APIOperation[Any, Any, Any, Any]
Case = schemathesis.Case[Any]
GOOD, BAD = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE


@contextmanager
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        # Nothing of the environment's proxies or passwords.
        made.trust_env = False
        yield made


def operations_of(url: str, http: requests.Session) -> list[Operation]:
    document = http.get(f"{url}/openapi.json", timeout=30).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url)
    return [cast(Any, found).ok() for found in schema.get_all_operations()]


def try_each(
    operation: Operation, mode: schemathesis.GenerationMode, count: int, attempt: Callable[[Case], None]
) -> None:
    """Make requests of an operation, and give each to ``attempt``, which asserts."""

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(mode))
    def each(case: Case) -> None:
        attempt(case)

    each()


def fuzz(url: str, headers: dict[str, str]) -> dict[str, set[int]]:
    """Send requests of each operation; the statuses of the answers to each."""
    statuses: dict[str, set[int]] = defaultdict(set)
    with session() as http:

        def send(case: Case) -> None:
            answer = case.call(session=http, headers=headers, timeout=30)
            statuses[name_of(case.operation)].add(answer.status_code)
            assert answer.status_code not in (500, 502), f"{case.as_curl_command()}\n{answer.text}"
            case.validate_response(answer, checks=CHECKS)

        for operation in operations_of(url, http):
            try_each(operation, GOOD, EXAMPLES, send)
            if list(operation.iter_parameters()) or operation.body:
                # For some operations there is no wrong request: any path is right, and any bytes are a body.
                with suppress(Unsatisfiable):
                    try_each(operation, BAD, EXAMPLES, send)
    return statuses


def name_of(operation: Operation) -> str:
    name: str = operation.definition.raw["operationId"]
    return name


def bad_tokens(stack: Stack) -> Iterator[str]:
    key = signing_key(stack.data_dir)
    good = signed_token(key, "ann", ["bidder", "operator", "seller"], ttl_s=600, environment={})
    claims = jwt.decode(good, options={"verify_signature": False})
    yield ""
    yield "nonsense"
    yield jwt.encode(claims, "", algorithm="none")
    yield jwt.encode(claims, "s" * 32, algorithm="HS256")
    yield signed_token(key, "ann", ["bidder", "operator", "seller"], ttl_s=-60, environment={})
    yield f"{good[:-4]}AAAA"


async def test_open(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY,))
    statuses = await asyncio.to_thread(fuzz, stack.urls.gateway_url, {})
    assert statuses.keys() == TABLE.keys() - {"bid_socket"}
    # Some requests that the document allows are accepted: otherwise nothing would be tried.
    for operation in ("create_item", "list_items", "place_bids", "create_items"):
        assert statuses[operation] & {200, 201}, operation
        assert 422 in statuses[operation], operation


async def test_with_good_tokens(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY,), env={"AUTH_MODE": "jwt"} | UNLIMITED)
    token = signed_token(
        signing_key(stack.data_dir), "ann", ["bidder", "operator", "seller"], ttl_s=3_600, environment={}
    )
    statuses = await asyncio.to_thread(fuzz, stack.urls.gateway_url, {"Authorization": f"Bearer {token}"})
    assert 201 in statuses["create_item"]
    assert statuses["exchange_api_key"] == {401}, "a token is no key"


async def test_no_bad_token_is_accepted(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY,), env={"AUTH_MODE": "jwt"} | UNLIMITED)
    tokens = list(bad_tokens(stack))
    statuses = await asyncio.to_thread(refused, stack.urls.gateway_url, tokens)
    assert statuses == {token: {401} for token in tokens}


def refused(url: str, tokens: Sequence[str]) -> dict[str, set[int]]:
    """By token, the statuses of the answers to calls that need one: each call is made with each of them."""
    statuses: dict[str, set[int]] = defaultdict(set)
    with session() as http:

        def send(case: Case) -> None:
            # The strategy may add a token of its own making.
            case.headers.pop("Authorization", None)
            for token in tokens:
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                answer = case.call(session=http, headers=headers, timeout=30)
                told = f"{name_of(case.operation)} with {token!r}: {answer.status_code} {answer.text}"
                assert answer.status_code == 401, told
                statuses[token].add(answer.status_code)

        for operation in operations_of(url, http):
            if NOBODY not in TABLE[name_of(operation)] or operation.path == TOKEN_PATH:
                try_each(operation, GOOD, 5, send)
    return statuses
