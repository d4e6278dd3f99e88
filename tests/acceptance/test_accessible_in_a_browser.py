"""axe-core finds nothing on any page, light and dark, on a desk and on a phone, also while bids come fast."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from itertools import count
from typing import Any

import httpx2 as httpx
import pytest
from playwright.async_api import expect

from infrastructure.local.stack import Stack
from tests.acceptance.browsing import PHONE, House, Person, Street, in_a_browser
from tests.waiting import eventually

pytestmark = in_a_browser

AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
# Beside WCAG 2.2 AA what axe's authors call good practice: landmarks, headings, unique names.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RIVALS, BIDS_PER_S = 4, 50
"""More than the 20 frames a second that the feed sends of one item, also where answers take their time."""
FRAMES_PER_S_MIN = 12
"""What must arrive of them on a machine that is busy with axe, too."""

# Steps of a ladder would grow with the price, and the rivals' bids would be too low.
FLAT = {"kind": "flat", "value": 1}

DESK = (1280, 900)
LOOKS = [(DESK, "light"), (DESK, "dark"), (PHONE, "light"), (PHONE, "dark")]


async def findings(person: Person, *, without: str = "") -> list[str]:
    """What axe finds on the page: each as its rule, what is wrong and where. ``without``: a part that is skipped.

    On a phone the form is scrolled into sight: what is half behind the button that sticks at the bottom is too small to
    be touched, there and then.
    """
    await person.page.evaluate(
        "document.querySelector('#panel')?.scrollIntoView({ block: 'end', behavior: 'instant' })"
    )
    if not await person.page.evaluate("typeof axe !== 'undefined'"):
        # By the debugger: the page's policy would refuse such a script.
        await person.page.evaluate(AXE)
    found: list[dict[str, Any]] = await person.page.evaluate(
        """async ([rules, without]) => {
          const context = without ? { exclude: [[without]] } : document;
          const { violations } = await axe.run(context, { runOnly: rules, resultTypes: ["violations"] });
          const shown = (nodes) => nodes.map(({ html }) => html.slice(0, 120));
          return violations.map(({ id, help, nodes }) => ({ id, help, nodes: shown(nodes) }));
        }""",
        [RULES, without],
    )
    return [f"{each['id']}: {each['help']}: {node}" for each in found for node in each["nodes"]]


async def looks(street: Street, size: tuple[int, int], scheme: Any) -> Person:
    person = await street.person("ada", size=size)
    # Without motion, as everybody here: axe would find the contrast of a colour between two, there for a moment.
    await person.page.emulate_media(color_scheme=scheme)
    return person


@asynccontextmanager
async def a_storm(platform: Stack, item_id: str) -> AsyncIterator[None]:
    """Bids come faster than frames are sent, during the block."""
    path = f"{platform.urls.gateway_url}/api/v1/items/{item_id}/bid"

    prices = count(11)

    async def bid() -> None:
        async with httpx.AsyncClient(timeout=30) as http:
            while True:
                price = next(prices)
                await http.post(path, json={"user_id": f"rival-{price % 3}", "amount": price})
                await asyncio.sleep(RIVALS / BIDS_PER_S)

    bidding = [asyncio.create_task(bid()) for _ in range(RIVALS)]
    try:
        yield
    finally:
        for each in bidding:
            each.cancel()


async def looked_at_while_frames_come(person: Person) -> None:
    """axe finds nothing; again, where frames came too slowly meanwhile, because the machine was busy."""

    async def fast_enough() -> bool:
        before, began_s = len(person.frames("bid")) + len(person.frames("state")), time.monotonic()
        assert await findings(person) == []
        await asyncio.sleep(0.5)
        came = len(person.frames("bid")) + len(person.frames("state")) - before
        return came / (time.monotonic() - began_s) >= FRAMES_PER_S_MIN

    await eventually(fast_enough, f"{FRAMES_PER_S_MIN} frames a second", seconds=60)


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
async def test_a_room_while_frames_come_fast(
    platform: Stack, house: House, street: Street, size: tuple[int, int], scheme: str
) -> None:
    item = f"chronograph-{size[0]}-{scheme}"
    terms: dict[str, Any] = {"increment": FLAT, "reserve_price": 99, "seller_id": "sam", "description": "It ticks."}
    await house.create(item, start_price=10, duration_s=3600, soft_close={"trigger_s": 60, "extend_s": 60}, **terms)
    ada = await looks(street, size, scheme)
    await ada.open_lot(item)
    assert await findings(ada) == []
    await ada.bids("10")
    await ada.sees("#standing", "You lead")
    assert await findings(ada) == []
    async with a_storm(platform, item):
        await ada.sees("#quick-label", "Bids come fast")
        await looked_at_while_frames_come(ada)
        await ada.page.get_by_role("radio", name="Leave a maximum", exact=True).check()
        await looked_at_while_frames_come(ada)
    await house.operate(item, "cancel", "it is late")
    await ada.sees("#notice", "It is late.")
    assert await findings(ada) == []


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
async def test_the_catalogue(platform: Stack, house: House, street: Street, size: tuple[int, int], scheme: str) -> None:
    item, other = f"sundial-{size[0]}-{scheme}", f"hourglass-{size[0]}-{scheme}"
    await house.create(item, start_price=10, duration_s=600, increment=FLAT, reserve_price=500, buy_now_price=900)
    await house.create(other, start_price=10, duration_s=500)
    await eventually(lambda: _lists(house, item), seconds=60)
    ada = await looks(street, size, scheme)
    await ada.takes_the_lead(other, "10")
    # Where nothing is heard any more of the lot's page.
    await ada.open("/favicon.svg")
    heard = len(ada.heard)
    await ada.open(f"/?q={item}")
    await expect(ada.at(".card:visible")).to_have_count(1)
    # The page tells of a bid that comes after it was told that she leads.
    await eventually(lambda: any(other in frame for frame in ada.heard[heard:]), f"a frame of {other}", seconds=30)
    async with a_storm(platform, item):
        await ada.sees(".card:visible", "bids")
        await house.bid(other, "bob", amount=20)
        await ada.sees("#outbid", "You were outbid on")
        assert await findings(ada) == []
    for path, words in (("/?status=mine", f"Lot {other}"), ("/?q=no-such-thing-at-all", "No lot matches")):
        await ada.open(path)
        await ada.sees("main", words)
        assert await findings(ada) == [], path


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
async def test_the_form_for_a_lot_and_what_is_not_there(street: Street, size: tuple[int, int], scheme: str) -> None:
    ada = await looks(street, size, scheme)
    await ada.open("/sell")
    assert await findings(ada) == []
    await ada.page.get_by_text("More terms").click()
    await ada.page.get_by_role("radio", name="Steps of your own").check()
    await ada.page.get_by_role("radio", name="Values of your own").check()
    await ada.at("#submit").click()
    await expect(ada.page.get_by_label("Name", exact=True)).to_be_focused()
    assert await findings(ada) == []
    for path in ("/items/no%20lot", "/items/no-lot-of-this-name"):
        await ada.open(path)
        await expect(ada.at("h1:visible")).to_have_count(1)
        assert await findings(ada) == [], path


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
async def test_the_description_of_the_api(street: Street, size: tuple[int, int], scheme: str) -> None:
    ada = await looks(street, size, scheme)
    await ada.open("/docs")
    await expect(ada.at("#reference .opblock").first).to_be_visible()
    await expect(ada.at("html")).to_have_attribute("lang", "en")
    await expect(ada.page.get_by_role("main").get_by_role("heading", level=1)).to_have_text("The HTTP API")
    # What is within is Swagger UI's.
    assert await findings(ada, without="#reference") == []
    assert await ada.overflow_px() == 0


async def _lists(house: House, item_id: str) -> bool:
    return item_id in await house.listed("open")
