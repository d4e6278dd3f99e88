"""Helpers for the tests of the pages: people at a browser, and the operator behind the auctions."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import pytest
from playwright.async_api import Browser, BrowserContext, Locator, Page, async_playwright, expect

from infrastructure.local.stack import Stack
from tests.acceptance.profiles.pool import DESK, Profile, Profiles
from tests.waiting import eventually

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
        if (path := shutil.which(name)) is not None
    ),
    None,
)
in_a_browser = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, google-chrome or chrome on PATH"),
    # One browser for all tests; it belongs to the event loop in which it was started.
    pytest.mark.asyncio(loop_scope="session"),
]
"""The marks of a module of such tests."""

PHONE = (360, 740)
"""The window of a small phone: what fits here fits everywhere."""

# A second list of disabled features replaces Playwright's, which is repeated here (1.65).
_DISABLED_BY_PLAYWRIGHT = (
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable",
    "LensOverlay",
    "MediaRouter",
    "PaintHolding",
    "ThirdPartyStoragePartitioning",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "OptimizationHints",
    "NetworkTimeServiceQuerying",
    "AimEnabled",
    "PreconnectToSearch",
)
# With each new context the browser would load two pages for an address bar that nobody sees, and start a process for
# a page that nobody opens: together they cost as much as a page of ours.
_NOT_NEEDED = (
    "WebUIOmniboxPopup",
    "WebUIOmniboxAimPopup",
    "WebUIOmniboxFullPopup",
    "SpareRendererForSitePerProcess",
)
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    # A new page of a profile in the process of the one that is parked there.
    "--process-per-site",
    f"--disable-features={','.join(_DISABLED_BY_PLAYWRIGHT + _NOT_NEEDED)}",
]

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

    async def takes_the_lead(self, item_id: str, amount: str) -> None:
        """Opens an item's page and bids there; returns once the page says that this leads."""
        await self.open_lot(item_id)
        await self.bids(amount)
        await self.sees("#standing", "You lead")

    async def leaves_maximum(self, amount: str) -> None:
        await self._offers("Leave a maximum", "Your maximum", amount)

    async def _offers(self, mode: str, label: str, amount: str) -> None:
        # The invisible radio button covers its label, so a click on the label is a click on the button.
        await self.page.get_by_role("radio", name=mode, exact=True).check()
        await self.page.get_by_label(label, exact=True).fill(amount)
        await self.at("#bid-button").click()

    async def bids_quickly(self, amount: str) -> None:
        """Presses the button of this amount; presses again if the page asks for it, because the amounts just moved."""
        button = self.page.get_by_role("button", name=f"Bid {amount} now")

        async def press() -> bool:
            await button.click()
            return "Press again" not in await self.at("#verdict").inner_text()

        await eventually(press, seconds=30)

    async def goes_offline(self, gone: bool) -> None:
        await self.page.context.set_offline(gone)

    def frames(self, kind: str) -> list[dict[str, Any]]:
        """The frames of this kind that came so far, in order."""
        return [frame for text in self.heard if (frame := json.loads(text)).get("type") == kind]

    async def overflow_px(self) -> int:
        """How much wider the page is than its window."""
        wide: int = await self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return wide

    async def has_in_sight(self, element_id: str) -> bool:
        """Whether the whole height of the element is in the window."""
        is_in_sight: bool = await self.page.evaluate(
            """(id) => {
              const { top, bottom } = document.getElementById(id).getBoundingClientRect();
              return top >= 0 && bottom <= innerHeight;
            }""",
            element_id,
        )
        return is_in_sight

    async def scrolls_to(self, y: int) -> None:
        await self.page.evaluate("(y) => scrollTo({ top: y, behavior: 'instant' })", y)

    async def seconds_left(self) -> int:
        units = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}
        text = await self.at("#countdown").inner_text()
        return sum(int(count) * units[unit] for count, unit in re.findall(r"(\d+)\s+(d|h|min|s)\b", text))


class Street:
    """Makes people: `ada = await street.person("ada")` has a browser with a profile of her own."""

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles
        self._taken: list[Profile] = []
        self._people: list[Person] = []

    async def person(self, name: str, *, size: tuple[int, int] = DESK, script: str = "") -> Person:
        profile = await self._profiles.take()
        self._taken.append(profile)
        return await self._opens_a_page(name, profile.context, size, script)

    async def beside(self, person: Person) -> Person:
        """The same person, in another page of the same profile."""
        return await self._opens_a_page(person.name, person.page.context, DESK, "")

    async def _opens_a_page(self, name: str, context: BrowserContext, size: tuple[int, int], script: str) -> Person:
        page = await context.new_page()
        if size != DESK:
            await page.set_viewport_size({"width": size[0], "height": size[1]})
        # Of the page, not of the context, whose scripts would be there for the next person too.
        await page.add_init_script(f"localStorage.setItem('bidding.user_id', '{name}'); {script}")
        person = Person(name, page, self._profiles.base_url)
        self._people.append(person)
        return person

    async def close(self) -> None:
        """Closes all pages. AssertionError if any page had an error."""
        for profile in self._taken:
            await self._profiles.give_back(profile)
        assert {person.name: person.faults for person in self._people if person.faults} == {}


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """A headless browser; it is closed with the block."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


class House:
    """Operators and other programs, through the API."""

    def __init__(self, stack: Stack) -> None:
        self._base = f"{stack.urls.gateway_url}/api/v1/items"

    async def create(self, item_id: str, **terms: Any) -> None:
        await self._post("", {"id": item_id, "name": f"Lot {item_id}", "increment": LADDER, **terms}, 201)

    async def create_all(self, *item_ids: str, **terms: Any) -> None:
        """Items that differ in nothing but their ids."""
        for item_id in item_ids:
            await self.create(item_id, **terms)

    async def bid(self, item_id: str, user_id: str, **amounts: float) -> Terms:
        return await self._post(f"/{item_id}/bid", {"user_id": user_id, **amounts}, 201)

    async def operate(self, item_id: str, operation: str, reason: str) -> Terms:
        return await self._post(f"/{item_id}/{operation}", {"reason": reason}, 200)

    async def item(self, item_id: str) -> Terms:
        async with httpx.AsyncClient(timeout=30) as http:
            answer: Terms = (await http.get(f"{self._base}/{item_id}")).json()
        return answer

    async def listed(self, status: str) -> set[str]:
        """The ids of the first hundred items of this status in the catalogue, which reads them from the archive; none
        while that cannot be read."""
        async with httpx.AsyncClient(timeout=30) as http:
            answer = await http.get(self._base, params={"status": status, "limit": 100})
        if answer.status_code != 200:
            return set()
        return {item["id"] for item in answer.json()["items"]}

    async def _post(self, path: str, body: Terms, status: int) -> Terms:
        async with httpx.AsyncClient(timeout=30) as http:
            answer = await http.post(self._base + path, json=body)
        assert answer.status_code == status, answer.text
        said: Terms = answer.json()
        return said
