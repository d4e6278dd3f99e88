"""A gateway with ``AUTH_MODE=jwt`` for the files that have none of their own, and who calls it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx2 as httpx
import pytest
import pytest_asyncio

from infrastructure.local.services import API_GATEWAY
from infrastructure.local.signing_key import signing_key
from infrastructure.local.stack import Stack
from tests.integration.gateway.identity.access_world import JSON, Callers
from tests.stack import running_stack


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    """One for several files: tests/distribution.py keeps them together."""
    with running_stack(services=(API_GATEWAY,), env={"AUTH_MODE": "jwt"}) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def callers(stack: Stack) -> AsyncIterator[Callers]:
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, headers=JSON, timeout=30) as http:
        yield Callers(http, signing_key(stack.data_dir))
