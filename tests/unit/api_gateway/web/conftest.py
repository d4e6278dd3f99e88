"""Who asks for pages and files."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2 as httpx
import pytest

from tests.unit.api_gateway.web.page import client_for


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_for("ws://127.0.0.1:8081") as client:
        yield client
