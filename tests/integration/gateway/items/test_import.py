"""Many items in one request, and files of them."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from click.testing import CliRunner, Result

from api_gateway.routes.item_batches import BYTES_MAX, PATH
from infrastructure.local.commands.auctions.import_lots import import_lots
from infrastructure.local.importing.lots_file import Lot
from infrastructure.local.importing.sender import TRIES_MAX, PlatformAway, Sender
from infrastructure.local.services import API_GATEWAY
from infrastructure.local.stack import Stack
from tests.stack import StackFactory

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def prefix() -> str:
    return f"import-{secrets.token_hex(4)}"


async def sent(http: httpx.AsyncClient, *items: Any, **more: Any) -> list[dict[str, Any]]:
    answer = await http.post(PATH, json={"items": list(items), **more})
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


async def test_each_item_has_the_answer_that_it_would_have_alone(http: httpx.AsyncClient, prefix: str) -> None:
    items: list[Any] = [
        {"id": f"{prefix}-a", "name": "A vase", "start_price": 5, "duration_s": 60},
        {"name": "no id"},
        {"id": f"{prefix}-b", "name": 7},
        {"id": f"{prefix}-c", "name": "x", "start_prise": 7},
        7,
        {"id": f"{prefix}-d", "name": "x", "end_time": "2001-01-01T00:00:00Z"},
        {"id": f"{prefix}-a", "name": "again"},
    ]
    dry = await sent(http, *items, dry_run=True)
    assert [one["status"] for one in dry] == [200, 200, 422, 422, 422, 422, 200]
    found = await sent(http, *items)
    assert [one["status"] for one in found] == [201, 201, 422, 422, 422, 422, 409]
    for item, one in zip(items, found, strict=True):
        if one["status"] == 201:
            assert (await http.get(f"/api/v1/items/{one['id']}")).json() == one["answer"]
        elif one["status"] == 422:
            assert (await http.post("/api/v1/items", json=item)).json() == one["answer"]
    again = await sent(http, *items)
    assert again[0]["status"] == 409


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"items":[]}', 422),
        (b'{"items":[%b]}' % b",".join([b'{"name":"x"}'] * 501), 422),
        (b'{"items":[{"name":"x"}],"dryrun":true}', 422),
        (b"[", 422),
        (b'{"items":"%b"}' % (b"a" * BYTES_MAX), 413),
    ],
    ids=["none", "too many", "a misspelt member", "no JSON", "too large"],
)
async def test_what_is_no_batch_is_refused_as_a_whole(http: httpx.AsyncClient, body: bytes, status: int) -> None:
    assert (await http.post(PATH, content=body)).status_code == status


async def run(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, import_lots, list(arguments))


async def test_a_file_is_imported_once_however_often_it_is_sent(
    gateway_stack: Stack, http: httpx.AsyncClient, tmp_path: Path, prefix: str
) -> None:
    file = tmp_path / "lots.csv"
    rows = [f"{prefix}-{number},Lot {number},{number}.50" for number in range(300)]
    file.write_text("id,name,start_price\n" + "\n".join(rows) + f"\n,{prefix} without an id,1\n")
    url = ("--gateway-url", gateway_stack.urls.gateway_url)
    dry = await run(str(file), "--dry-run", *url)
    assert (dry.exit_code, dry.stdout) == (0, "301 could be created, 0 refused, of 301 lots.\n")
    assert (await http.get(f"/api/v1/items/{prefix}-7/bids")).status_code == 404
    # As if an earlier run had been interrupted.
    await sent(http, *({"id": f"{prefix}-{number}", "name": f"Lot {number}"} for number in range(40)))
    first = await run(str(file), *url)
    assert (first.exit_code, first.stdout) == (0, "261 created, 40 there already, 0 refused, of 301 lots.\n")
    second = await run(str(file), *url)
    assert (second.exit_code, second.stdout) == (0, "0 created, 301 there already, 0 refused, of 301 lots.\n")
    assert (await http.get(f"/api/v1/items/{prefix}-299")).json()["start_price"] == 299.5


async def test_wrong_lines_are_told_by_their_number(gateway_stack: Stack, tmp_path: Path, prefix: str) -> None:
    file = tmp_path / "lots.jsonl"
    url = ("--gateway-url", gateway_stack.urls.gateway_url)
    file.write_text(f'{{"name":"{prefix}"}}\n{{"name":\n')
    unread = await run(str(file), *url)
    assert (unread.exit_code, unread.stdout) == (1, "")
    assert "line 2: " in unread.stderr
    assert "Nothing was created." in unread.stderr
    file.write_text(f'{{"name":"{prefix}"}}\n{{"name":"x","start_price":0.001}}\n{{"name":"x","prize":1}}\n')
    refused = await run(str(file), *url)
    assert (refused.exit_code, refused.stdout) == (1, "1 created, 0 there already, 2 refused, of 3 lots.\n")
    assert [line.partition(":")[0] for line in refused.stderr.splitlines()] == ["line 2", "line 3"]


async def test_a_platform_that_goes_away_is_waited_for(start_stack: StackFactory, prefix: str) -> None:
    stack = await start_stack(services=(API_GATEWAY,))
    ids = [f"{prefix}-{number}" for number in range(3)]
    lots = [Lot(line, item_id, b'{"id":"%b","name":"x"}' % item_id.encode()) for line, item_id in enumerate(ids)]
    await stack.stop_process("redis")
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            await stack.start_process("redis")
        await asyncio.sleep(0.3)

    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as http:
        sender = Sender(http, dry_run=False, sleep=sleep)
        await sender.send(lots)
        assert (sender.tally.created, sender.tally.there) in ((3, 0), (2, 1), (1, 2), (0, 3))
        assert len(pauses) >= 2
        await stack.stop_process(API_GATEWAY)
        pauses = [0.0] * 3
        with pytest.raises(PlatformAway):
            await sender.send(lots)
        assert len(pauses) == 3 + TRIES_MAX - 1
