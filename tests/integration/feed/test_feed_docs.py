"""The minimal clients of docs/feed.md do what the page says, over connections that are cut."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from asyncio.subprocess import DEVNULL
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from infrastructure.local.servers.ports import free_ports
from infrastructure.local.stack import Stack
from tests.acceptance.browsing import CHROMIUM, running_browser
from tests.faults.rig.proxy import FaultyProxy
from tests.integration.feed.feed_world import AuctionHouse, another_feed
from tests.programs import finished, started
from tests.waiting import eventually

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[3] / "docs" / "feed.md").read_text()
PATIENCE_S = 60.0


def code(language: str) -> str:
    [block] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(block)


async def test_the_client_in_python(feed_stack: Stack, house: AuctionHouse, tmp_path: Path) -> None:
    item = await house.open()
    program = tmp_path / "client.py"
    program.write_text(code("python"))
    seen: list[tuple[str, int]] = []
    async with FaultyProxy(feed_stack.ports.broadcast) as proxy:
        command = (sys.executable, str(program), f"ws://127.0.0.1:{proxy.port}", item)
        async with started(*command, stderr=DEVNULL) as client, asyncio.timeout(PATIENCE_S):
            assert client.stdout is not None
            for number in range(1, 6):
                await house.bid(item, 100 * number)
                if number % 2 == 0:
                    proxy.cut()
                while not seen or seen[-1][1] < number:
                    kind, seq, price = (await client.stdout.readline()).decode().split()
                    assert float(price) == int(seq)
                    seen.append((kind, int(seq)))
        assert seen[0][0] == "snapshot"
        assert seen[1:] == [("bid", seq) for seq in range(seen[0][1] + 1, 6)]
        assert proxy.cuts >= 2


async def test_the_client_in_python_gives_up_where_it_is_no_use(feed_stack: Stack, tmp_path: Path) -> None:
    program = tmp_path / "client.py"
    program.write_text(code("python"))
    command = (sys.executable, str(program), f"ws://127.0.0.1:{feed_stack.ports.broadcast}", "nowhere")
    ended_with, said = await finished(*command, within_s=PATIENCE_S)
    assert ended_with == 1
    assert "4404" in said


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, google-chrome or chrome on PATH")
async def test_the_client_in_javascript(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with FaultyProxy(feed_stack.ports.broadcast) as proxy, running_browser() as browser:
        page = await browser.new_page()
        await page.goto(f"{feed_stack.urls.broadcast_url}/health")
        watch = f"window.shown = []; watch('ws://127.0.0.1:{proxy.port}', '{item}', (frame) => shown.push(frame));"
        await page.evaluate(f"() => {{ {code('js')} {watch} }}")

        async def reached(seq: int) -> Any:
            return await page.evaluate("(seq) => shown.length > 0 && shown.at(-1).seq >= seq", seq)

        for number in range(1, 6):
            await house.bid(item, 100 * number)
            if number % 2 == 0:
                proxy.cut()
            await eventually(lambda number=number: reached(number), seconds=PATIENCE_S)  # type: ignore[misc]
        seen = await page.evaluate("() => shown.map((frame) => [frame.type, frame.seq, frame.current_bid])")
    assert seen[0][0] == "snapshot"
    assert seen[1:] == [["bid", seq, f"{seq}.00"] for seq in range(seen[0][1] + 1, 6)]
    assert proxy.cuts >= 2


def node_command() -> list[str] | None:
    """Node with a WebSocket of its own, or None where there is none."""
    node = shutil.which("node")
    if node is None:
        return None
    for command in ([node], [node, "--experimental-websocket"]):
        asked = subprocess.run([*command, "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"], timeout=30)
        if asked.returncode == 0:
            return command
    return None


NODE = node_command()
SHOW = "(frame) => console.log(frame.type, frame.seq, frame.current_bid)"


@pytest.mark.skipif(NODE is None, reason="no node with WebSocket on PATH")
async def test_the_client_in_node(feed_stack: Stack, house: AuctionHouse, tmp_path: Path) -> None:
    """It survives connections that are cut, and a service that is not there for a while."""
    assert NODE is not None
    item = await house.open()
    program = tmp_path / "client.mjs"
    program.write_text(f"{code('js')}\nwatch(process.argv[2], process.argv[3], {SHOW});\n")
    seen: list[tuple[str, int, str]] = []
    async with FaultyProxy(feed_stack.ports.broadcast) as proxy:
        command = (*NODE, str(program), f"ws://127.0.0.1:{proxy.port}", item)
        async with started(*command, stderr=DEVNULL) as client, asyncio.timeout(PATIENCE_S):
            assert client.stdout is not None
            for number in range(1, 6):
                await house.bid(item, 100 * number)
                if number % 2 == 0:
                    proxy.cut()
                while not seen or seen[-1][1] < number:
                    kind, seq, price = (await client.stdout.readline()).decode().split()
                    seen.append((kind, int(seq), price))
    assert seen[0][0] == "snapshot"
    assert seen[1:] == [("bid", seq, f"{seq}.00") for seq in range(seen[0][1] + 1, 6)]
    assert proxy.cuts >= 2


@pytest.mark.skipif(NODE is None, reason="no node with WebSocket on PATH")
async def test_the_client_in_node_says_what_cannot_be_watched(feed_stack: Stack, tmp_path: Path) -> None:
    """And waits for a service that is not there, instead of ending with an error."""
    assert NODE is not None
    program = tmp_path / "client.mjs"
    program.write_text(f"{code('js')}\nwatch(process.argv[2], process.argv[3], {SHOW});\n")
    command = (*NODE, str(program), f"ws://127.0.0.1:{feed_stack.ports.broadcast}", "nowhere")
    ended_with, said = await finished(*command, within_s=PATIENCE_S)
    assert ended_with == 0
    assert "nowhere cannot be watched: 4404" in said
    assert "undefined" not in said
    [port] = free_ports(1)
    async with started(*NODE, str(program), f"ws://127.0.0.1:{port}", "nowhere", stderr=DEVNULL) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await client.wait()


@pytest.mark.skipif(NODE is None, reason="no node with WebSocket on PATH")
async def test_the_client_in_node_waits_for_an_item_that_does_not_exist_yet(
    feed_stack: Stack, house: AuctionHouse, tmp_path: Path
) -> None:
    assert NODE is not None
    program = tmp_path / "client.mjs"
    program.write_text(f"{code('js')}\nconsole.log('started'); watch(process.argv[2], process.argv[3], {SHOW});\n")
    async with (
        another_feed(feed_stack, "feed-docs-open", OPEN_CATALOGUE="true") as port,
        connect(f"ws://127.0.0.1:{port}/ws/items/not-yet") as beside,
        started(*NODE, str(program), f"ws://127.0.0.1:{port}", "not-yet", stderr=DEVNULL) as client,
        asyncio.timeout(PATIENCE_S),
    ):
        assert client.stdout is not None
        assert (await client.stdout.readline()).decode().strip() == "started"
        # Two viewers are counted: the program's connection is there, and it was told what there is of the item.
        while json.loads(await beside.recv()).get("viewers") != 2:
            pass
        await house.open("not-yet", start_price=70)
        await house.bid("not-yet", 100)
        seen: list[list[str]] = []
        while not seen or seen[-1][1] != "1":
            seen.append((await client.stdout.readline()).decode().split())
    assert seen[0] == ["snapshot", "0", "0.70"], seen
