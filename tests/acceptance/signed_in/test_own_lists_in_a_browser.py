"""In real browsers: the watch list of somebody who signs in, on two of them, and what a seller sells."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Route, expect

from infrastructure.local.stack import Stack
from tests.acceptance.browsing import PHONE, Person, Street, in_a_browser
from tests.acceptance.guarded import GuardedHouse
from tests.acceptance.signed_in.test_signing_in_a_browser import kept
from tests.acceptance.test_accessible_in_a_browser import LOOKS, findings, looks
from tests.waiting import eventually

pytestmark = in_a_browser

SHOTS = os.environ.get("SHOTS", "")
"""A folder for pictures of the pages, for people to look at."""


async def shot(person: Person, name: str) -> None:
    if SHOTS:
        await person.page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


async def names(person: Person) -> list[str]:
    """The names of the lots that the catalogue shows."""
    return await person.at(".card:visible h2").all_inner_texts()


async def shows(person: Person, path: str, *lots: str) -> None:
    await person.open(path)
    await expect(person.at(".card:visible")).to_have_count(len(lots))
    assert await names(person) == [f"Lot {lot}" for lot in lots]


async def test_the_watch_list_goes_with_the_person(known: GuardedHouse, guarded: Stack, lane: Street) -> None:
    for item in ("spinet", "virginal", "celesta", "dulcimer"):
        await known.create(item, start_price=10, duration_s=3600)
    watch = "Watch this lot"
    desk = await lane.person("wanda")
    for item in ("spinet", "dulcimer"):
        await desk.open_lot(item)
        await desk.page.get_by_role("button", name=watch).click()
    await shows(desk, "/?status=watched", "dulcimer", "spinet")
    # After her sign-in she has a list of her own, and is asked about the lots that the browser watched.
    await known.sign_in(desk, "bidder")
    await desk.sees("#none-such-text", "You watch no lot.")
    await desk.sees(".take-over", "Before you signed in, this browser watched 2 lots.")
    assert await findings(desk) == []
    await shot(desk, "offer-desk")
    await desk.page.get_by_role("button", name="Add to your watch list").click()
    await desk.sees(".take-over", "They are on your watch list now.")
    await expect(desk.at(".card:visible")).to_have_count(2)
    assert await names(desk) == ["Lot dulcimer", "Lot spinet"]
    await desk.open_lot("celesta")
    button = desk.page.get_by_role("button", name=watch)
    await button.click()
    await expect(button).to_have_attribute("aria-pressed", "true")
    await expect(desk.at(".take-over")).to_be_hidden()
    await known.bid("virginal", "wanda", amount=10)

    phone = await lane.person("wanda", size=PHONE)
    await phone.open("/")
    await known.sign_in(phone, "bidder")
    # One that is gone does no harm.
    connection = await asyncpg.connect(guarded.urls.postgres_url)
    await connection.execute("INSERT INTO watched (user_id, item_id, part) VALUES ('wanda', 'never-there', 0)")
    await connection.execute("UPDATE watch_parts SET items = items + 1 WHERE part = 0")
    await connection.close()
    await shows(phone, "/?status=watched", "celesta", "dulcimer", "spinet")
    await phone.open_lot("dulcimer")
    await expect(phone.page.get_by_role("button", name=watch)).to_have_attribute("aria-pressed", "true")
    await phone.page.get_by_role("button", name=watch).click()
    await expect(phone.page.get_by_role("button", name=watch)).to_have_attribute("aria-pressed", "false")
    await shows(desk, "/?status=watched", "celesta", "spinet")

    # The lots that she has bid on are known here, too, and she is told that she was outbid.
    heard = 0

    async def mine() -> bool:
        nonlocal heard
        heard = len(phone.heard)
        await phone.open("/?status=mine")
        await expect(phone.at("#count").or_(phone.at("#none-such-text")).first).not_to_be_empty()
        return await names(phone) == ["Lot virginal"]

    await eventually(mine, "the bid of another device", seconds=60)
    await phone.sees(".card .tag-good", "You lead")

    # The page tells of a bid that comes after it was told that she leads.
    def is_told() -> bool:
        return any('"standing"' in frame and "virginal" in frame for frame in phone.heard[heard:])

    await eventually(is_told, "the standing on the lot", seconds=30)
    await known.bid("virginal", "rival-of-the-long-name", amount=20)
    await phone.sees("#outbid", "You were outbid on Lot virginal")

    # Nothing of her stays, and whoever is next at this browser has another list.
    await desk.page.get_by_role("button", name="Sign out").click()
    await expect(desk.at(".account-name")).to_be_hidden()
    await desk.sees("#none-such-text", "You watch no lot.")
    # The first is what the test gives a person's browser, for houses that ask nobody.
    left = (await kept(desk)).replace('"bidding.user_id":"wanda"', "")
    assert [word for word in ("wanda", "spinet", "celesta", "bidding.") if word in left] == [], left
    assert "spinet" not in await desk.page.content()
    guest = Person("eve", desk.page, desk.base_url)
    await known.sign_in(guest, "bidder")
    await desk.sees("#none-such-text", "You watch no lot.")
    await shows(phone, "/?status=watched", "celesta", "spinet")
    await known.end_session(phone)
    await phone.sees("#none-such-text", "You watch no lot.")
    assert "spinet" not in await phone.page.content()


async def has_watched(person: Person, *lots: str) -> None:
    """Their browser watches these lots, and nobody is signed in."""
    for lot in lots:
        await person.open_lot(lot)
        button = person.page.get_by_role("button", name="Watch this lot")
        await button.click()
        await expect(button).to_have_attribute("aria-pressed", "true")


async def test_what_the_browser_watched_is_taken_over_however_often_the_house_makes_it_wait(
    known: GuardedHouse, lane: Street
) -> None:
    for item in ("ocarina", "panpipe"):
        await known.create(item, start_price=10, duration_s=3600)
    zoe = await lane.person("zoe")
    await has_watched(zoe, "ocarina", "panpipe")
    await known.sign_in(zoe, "bidder")
    refusals = [(429, "RATE_LIMITED"), (503, "OVERLOADED"), (429, "RATE_LIMITED")]

    async def refuse(route: Route) -> None:
        if not refusals:
            await route.continue_()
            return
        status, code = refusals.pop()
        body = f'{{"code": "{code}", "detail": "later"}}'
        headers = {"Retry-After": "1"}
        await route.fulfill(status=status, headers=headers, content_type="application/problem+json", body=body)

    await zoe.page.route("**/api/v1/me/watch-list/*", refuse)
    await zoe.page.get_by_role("button", name="Add to your watch list").click()
    await zoe.sees(".take-over", "They are on your watch list now.")
    await shows(zoe, "/?status=watched", "panpipe", "ocarina")


async def test_who_signs_in_while_the_taking_over_waits_gets_nothing_of_it(known: GuardedHouse, lane: Street) -> None:
    await known.create("kazoo", start_price=10, duration_s=3600)
    guest = await lane.person("yan")
    await guest.page.clock.install()
    await has_watched(guest, "kazoo")
    await known.sign_in(guest, "bidder")
    asked: list[str] = []

    async def refuse(route: Route) -> None:
        asked.append(route.request.url)
        body = '{"code": "RATE_LIMITED", "detail": "later"}'
        headers = {"Retry-After": "30"}
        await route.fulfill(status=429, headers=headers, content_type="application/problem+json", body=body)

    await guest.page.route("**/api/v1/me/watch-list/*", refuse)
    await guest.page.get_by_role("button", name="Add to your watch list").click()
    await eventually(lambda: len(asked) == 1, "a first attempt")
    await known.end_session(guest)
    guest.name = "yul"
    await known.sign_in(guest, "bidder")
    await guest.page.clock.fast_forward(31_000)
    # Only what is pressed now is asked for now.
    await guest.page.get_by_role("button", name="Watch this lot").click()
    await guest.sees("#watch-note", "Your watch list stays as it was.")
    assert len(asked) == 2, asked


async def test_what_cannot_be_watched_is_said(known: GuardedHouse, lane: Street) -> None:
    await known.create("theremin", start_price=10, duration_s=3600)
    ann = await lane.person("ann")
    await ann.open_lot("theremin")
    await known.sign_in(ann, "bidder")
    button = ann.page.get_by_role("button", name="Watch this lot")
    full = '{"code": "WATCH_LIST_FULL", "detail": "your watch list has 500 items, which is the most"}'

    async def refuse(route: Any) -> None:
        await route.fulfill(status=409, content_type="application/problem+json", body=full)

    await ann.page.route("**/api/v1/me/watch-list/*", refuse)
    await button.click()
    await ann.sees("#watch-note", "Your watch list stays as it was. Your watch list has 500 items, which is the most.")
    await expect(button).to_have_attribute("aria-pressed", "false")


async def test_a_seller_sees_how_their_lots_do(known: GuardedHouse, lane: Street) -> None:
    for number in range(26):
        terms: dict[str, Any] = {"start_price": 10, "duration_s": 90_000, "seller_id": "sela"}
        await known.create(f"sitar-{number:02}", **terms)
    await known.create("tanpura", seller_id="stan", start_price=10)
    await known.bid("sitar-25", "bob", amount=12.5)
    await known.call("sela", "seller", "/items/sitar-24/cancel", {"reason": "it broke"})
    sela = await lane.person("sela")
    await sela.open("/selling")
    await sela.sees("#barred", "Sign in as a seller.")
    await known.sign_in(sela, "seller")
    await sela.sees("#lots-title", "Your lots")
    rows, state = sela.at("#lots-rows tr"), sela.at("#lots-status")
    # The archive may be a moment behind, and the page asks again by itself.
    await expect(rows).to_have_count(24)
    first = rows.filter(has_text="sitar-25")
    for cell, text in (("badge", "Open"), ("price-now", "$12.50"), ("price-is", "Current bid"), ("bids", "1")):
        await expect(first.locator(f".{cell}")).to_have_text(text)
    await expect(rows.filter(has_text="sitar-24").locator(".badge")).to_have_text("Withdrawn")
    # It follows the bids.
    await known.bid("sitar-25", "cyd", amount=40)
    await expect(first.locator(".price-now")).to_have_text("$40.00")
    await expect(first.locator(".bids")).to_have_text("2")
    await sela.page.get_by_role("button", name="Next page").click()
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("sitar-01")
    await sela.page.get_by_role("button", name="First page").click()
    await expect(rows).to_have_count(24)
    await state.select_option("cancelled")
    await expect(rows).to_have_count(1)
    await state.select_option("sold")
    await sela.sees("#lots-note", "None of these lots has this status at the moment.")
    await state.select_option("")
    await sela.page.get_by_role("button", name="Who may bid on Lot sitar-23").click()
    await sela.sees("#lot-name", "Lot sitar-23")
    await expect(sela.at("#lot-name")).to_be_focused()
    await sela.page.get_by_role("link", name="Lot sitar-25").click()
    await sela.is_live()
    assert "tanpura" not in await sela.page.content()

    # Operators say whose.
    oda = await lane.person("oda")
    await oda.open("/selling")
    await known.sign_in(oda, "operator")
    await expect(oda.at("#lots")).to_be_hidden()
    await oda.at("#seller").fill("stan")
    await oda.page.keyboard.press("Enter")
    await oda.sees("#lots-title", "Lots of stan")
    await expect(oda.at("#lots-rows tr")).to_have_count(1)
    await known.end_session(oda)
    assert "tanpura" not in await oda.page.content()


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
async def test_how_the_lots_of_a_seller_look(
    known: GuardedHouse, lane: Street, size: tuple[int, int], scheme: str
) -> None:
    seller = f"sol-{size[0]}-{scheme}"
    name = "A longcase clock by Thomas Tompion, walnut, eight days, with its certificate"
    await known.create(f"pendulum-{seller}-1", seller_id=seller, name=name, start_price=1200, reserve_price=90_000)
    await known.create(f"pendulum-{seller}-2", seller_id=seller, name="\u05d0" * 60, start_price=10, duration_s=1800)
    await known.create(f"pendulum-{seller}-3", seller_id=seller, name="x" * 90, start_price=10, duration_s=90_000)
    await known.bid(f"pendulum-{seller}-1", "bob", amount=1250.5)
    await known.call(seller, "seller", f"/items/pendulum-{seller}-3/cancel", {"reason": "it broke"})
    sol = await looks(lane, size, scheme)
    sol.name = seller
    await sol.open("/selling")
    await known.sign_in(sol, "seller")
    await expect(sol.at("#lots-rows tr")).to_have_count(3)
    await sol.sees("#lots-rows", "Withdrawn")
    assert await findings(sol) == []
    assert await sol.overflow_px() == 0
    await shot(sol, f"lots-{size[0]}-{scheme}")
