"""People at a browser, and the house behind the auctions: what the tests of the pages are told with."""

from __future__ import annotations

import re
from typing import Any

import httpx
from playwright.async_api import Locator, Page, expect

from infrastructure.local.stack import Stack

LADDER = {"kind": "ladder"}
WAIT_MS = 30_000
"""How long an expectation may take: long, because the machine may be busy; one that holds costs no time."""

expect.set_options(timeout=WAIT_MS)

Terms = dict[str, Any]


class Person:
    """One person at a browser of their own, bidding under `name`."""

    def __init__(self, name: str, page: Page, base_url: str) -> None:
        self.name = name
        self.page = page
        self.base_url = base_url
        self.heard: list[str] = []
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda message: self._console(message.text))
        page.on("websocket", lambda socket: socket.on("framereceived", self._frame))

    def _console(self, text: str) -> None:
        if "Content Security Policy" in text or "Trusted" in text:
            self.faults.append(text)

    def _frame(self, payload: str | bytes) -> None:
        self.heard.append(payload if isinstance(payload, str) else payload.decode())

    async def open(self, path: str) -> None:
        await self.page.goto(self.base_url + path)

    async def open_lot(self, item_id: str) -> None:
        """Opens an item's page; returns once it is live."""
        await self.open(f"/items/{item_id}")
        await self.is_live()

    async def reload_lot(self) -> None:
        await self.page.reload()
        await self.is_live()

    async def is_live(self) -> None:
        await expect(self.at("#connection-text")).to_have_text("Live")

    def at(self, selector: str) -> Locator:
        return self.page.locator(selector)

    async def sees(self, selector: str, text: str | re.Pattern[str]) -> None:
        await expect(self.at(selector)).to_contain_text(text)

    async def bids(self, amount: str) -> None:
        await self._offers("Bid", "Your bid", amount)

    async def leaves_maximum(self, amount: str) -> None:
        await self._offers("Leave a maximum", "Your maximum", amount)

    async def _offers(self, mode: str, label: str, amount: str) -> None:
        # The radio button lies invisibly over its words, so that a click on them is a click on it.
        await self.page.get_by_role("radio", name=mode, exact=True).check()
        await self.page.get_by_label(label, exact=True).fill(amount)
        await self.at("#bid-button").click()

    async def seconds_left(self) -> int:
        units = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}
        text = await self.at("#countdown").inner_text()
        return sum(int(count) * units[unit] for count, unit in re.findall(r"(\d+)\s+(d|h|min|s)\b", text))


class House:
    """What operators and other programs do, through the API."""

    def __init__(self, stack: Stack) -> None:
        self._base = f"{stack.urls.gateway_url}/api/v1/items"

    async def create(self, item_id: str, **terms: Any) -> None:
        await self._post("", {"id": item_id, "name": f"Lot {item_id}", "increment": LADDER, **terms}, 201)

    async def bid(self, item_id: str, user_id: str, **amounts: float) -> Terms:
        return await self._post(f"/{item_id}/bid", {"user_id": user_id, **amounts}, 201)

    async def operate(self, item_id: str, operation: str, reason: str) -> Terms:
        return await self._post(f"/{item_id}/{operation}", {"reason": reason}, 200)

    async def item(self, item_id: str) -> Terms:
        async with httpx.AsyncClient() as http:
            answer: Terms = (await http.get(f"{self._base}/{item_id}")).json()
        return answer

    async def _post(self, path: str, body: Terms, status: int) -> Terms:
        async with httpx.AsyncClient(timeout=10) as http:
            answer = await http.post(self._base + path, json=body)
        assert answer.status_code == status, answer.text
        said: Terms = answer.json()
        return said
