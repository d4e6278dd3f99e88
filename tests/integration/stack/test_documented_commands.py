"""The command lines of the pages, executed as they stand, on a platform at other ports."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx2 as httpx
import pytest
import pytest_asyncio

from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from tests.documents.commands import EXECUTED, ROOT, documented, is_executed
from tests.programs import finished
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_S = 60.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform() -> AsyncIterator[Stack]:
    factory = StackFactory()
    try:
        # As `bidding up` does it: the first bid opens an item.
        env = {"OPEN_CATALOGUE": "true", "OPEN_IDENTITY": "true", "FEED_TOKEN_SECRET": "x" * 32}
        stack = await factory(services=(API_GATEWAY, ARCHIVAL_WORKER), env=env)
        async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as http:
            bid = await http.post("/api/v1/items/lot-1/bid", json={"user_id": "ada", "amount": 5})
            assert bid.status_code == 201
        yield stack
    finally:
        await factory.close()


def environment(stack: Stack, home: Path) -> dict[str, str]:
    urls = stack.urls
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "API": f"{urls.gateway_url}/api/v1",
        "GATEWAY_URL": urls.gateway_url,
        "REDIS_URL": urls.redis_url,
        "NATS_URL": urls.nats_url,
        "POSTGRES_URL": urls.postgres_url,
        "HOME": str(home),
    }


def at_our_ports(text: str, stack: Stack, folder: Path) -> str:
    text = text.replace("http://127.0.0.1:8080", stack.urls.gateway_url)
    text = text.replace("6479", str(stack.ports.redis)).replace("5532", str(stack.ports.postgres))
    return text.replace("> archive.sql", f"> {folder / 'archive.sql'}")


async def works(stack: Stack, folder: Path, text: str) -> bool:
    line = at_our_ports(text, stack, folder)
    if line.startswith("curl "):
        line = line.replace("curl ", "curl --fail-with-body --max-time 30 ", 1)
    command = ("sh", "-c", f"cd {ROOT} && {line}")
    ended_with, said = await finished(*command, within_s=PATIENCE_S, env=environment(stack, folder))
    if ended_with != 0 and "audit" in line:
        await asyncio.sleep(0.2)
        return False  # it is in the archive a moment later
    assert ended_with == 0, f"{text}\n{said}"
    return True


@pytest.mark.parametrize("page", EXECUTED)
async def test_the_commands_of_a_page_work(platform: Stack, tmp_path: Path, page: str) -> None:
    commands = [each.text for each in documented() if each.page == page and is_executed(each)]
    assert commands
    for text in commands:
        await eventually(partial(works, platform, tmp_path, text), text, seconds=PATIENCE_S)
    if page == "operations.md":
        assert "CREATE TABLE" in (tmp_path / "archive.sql").read_text()
