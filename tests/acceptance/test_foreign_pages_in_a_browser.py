"""A page of another site, in a real browser, tries to bid at the platform that its reader can reach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2 as httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from infrastructure.local.stack import Stack
from tests.acceptance.browsing import in_a_browser

pytestmark = in_a_browser

TRIES = """async ([url, item]) => {
  const at = `${url}/api/v1/items/${item}/bid`;
  const bid = (amount) => JSON.stringify({ user_id: "ann", amount });
  const types = ["text/plain", "application/x-www-form-urlencoded", undefined];
  for (const [n, type] of types.entries()) {
    const headers = type ? { "Content-Type": type } : {};
    const body = type ? bid(100 + n) : new Blob([bid(100 + n)]);
    await fetch(at, { method: "POST", mode: "no-cors", headers, body }).catch(() => null);
  }
  navigator.sendBeacon(at, bid(110));
  // A form whose one field makes JSON of it.
  const form = document.createElement("form");
  form.action = at;
  form.method = "post";
  form.enctype = "text/plain";
  form.target = "sink";
  const field = document.createElement("input");
  field.name = '{"user_id":"ann","amount":120,"bid_id":"';
  field.value = 'form"}';
  form.append(field);
  const frame = document.createElement("iframe");
  frame.name = "sink";
  document.body.append(frame, form);
  form.submit();
  const asked = await fetch(at, { method: "POST", headers: { "Content-Type": "application/json" }, body: bid(130) })
    .then((answer) => answer.status, () => "refused");
  const socket = new WebSocket(`${url.replace("http", "ws")}/api/v1/bids`);
  const opened = await new Promise((resolve) => {
    socket.onopen = () => resolve(true);
    socket.onerror = () => resolve(false);
  });
  const read = await fetch(`${url}/api/v1/items/${item}`).then(() => true, () => false);
  await new Promise((resolve) => setTimeout(resolve, 500));
  return { asked, opened, read };
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def elsewhere() -> AsyncIterator[int]:
    """The port of another site of this machine, with one page."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"<!doctype html><title>Elsewhere</title><body>"
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(
            body
        )
        writer.write(head + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


# A page of the same site, in the browsers' sense, but of another origin; and a page of another site.
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_it_places_no_bid_in_any_way(platform: Stack, browser: Browser, elsewhere: int, host: str) -> None:
    url, item = platform.urls.gateway_url, f"foreign-{host.replace('.', '-')}"
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        before = (await http.get(f"/api/v1/items/{item}")).json()
        page = await browser.new_page()
        try:
            await page.goto(f"http://{host}:{elsewhere}/")
            told = await page.evaluate(TRIES, [url, item])
        finally:
            await page.close()
        assert told == {"asked": "refused", "opened": False, "read": False}
        after = (await http.get(f"/api/v1/items/{item}")).json()
        assert (after["bid_count"], after["seq"]) == (before["bid_count"], before["seq"]) == (0, 0)
