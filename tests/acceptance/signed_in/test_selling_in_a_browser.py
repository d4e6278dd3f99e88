"""The sellers' page in a real browser: who may bid on one lot of theirs, and on all of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from playwright.async_api import Route, expect

from infrastructure.local.stack import Stack
from tests.acceptance.browsing import PHONE, House, Person, Street, in_a_browser
from tests.acceptance.guarded import GuardedHouse
from tests.acceptance.signed_in.test_rulings_in_a_browser import answer_to_bid, confirm, look_up, press, ruled
from tests.acceptance.test_accessible_in_a_browser import LOOKS, findings, looks
from tests.acceptance.test_keyboard_in_a_browser import enter, tabs_to
from tests.waiting import eventually

pytestmark = in_a_browser

LOT, ALL = "#lot-bidders", "#seller-bidders"
SMALLEST = (320, 640)


async def sells(known: GuardedHouse, item: str, seller: str, **terms: Any) -> None:
    await known.create(item, seller_id=seller, start_price=10, duration_s=3600, **terms)


async def signed_in(lane: Street, known: GuardedHouse, name: str, *roles: str, path: str = "/selling") -> Person:
    person = await lane.person(name)
    await person.open(path)
    await known.sign_in(person, *roles)
    return person


async def finds(person: Person, text: str) -> None:
    await person.at("#find").fill(text)
    await person.page.keyboard.press("Enter")


async def test_a_seller_rules_on_bidders_of_a_lot_with_the_keyboard_alone(known: GuardedHouse, lane: Street) -> None:
    await sells(known, "rheostat", "sam", approval_required=True)
    sam = await signed_in(lane, known, "sam", "seller", path="/items/rheostat")
    await tabs_to(sam, name="Who may bid on it")
    await enter(sam)
    await sam.sees("#lot-name", "Lot rheostat")
    await sam.sees("#who-words", "This lot requires approval.")
    await sam.sees(LOT, "Nobody was approved, blocked or limited.")

    await tabs_to(sam, element="lot-bidder-find")
    await sam.page.keyboard.type("bob")
    await enter(sam)
    await expect(sam.at(f"{LOT} .bidder-name")).to_be_focused()
    await sam.sees(f"{LOT} .bidder-card", "May not bid here: not approved.")
    assert await answer_to_bid(known, "rheostat", "bob", 10) == "NOT_APPROVED"
    await tabs_to(sam, name="Approve")
    await enter(sam)
    await confirm(sam, "a customer for years")
    await sam.sees(f"{LOT} .bidder-card", "May bid here.")
    assert await answer_to_bid(known, "rheostat", "bob", 10) == "accepted"

    await press(sam, LOT, "Limit")
    await sam.page.keyboard.type("25.50")
    await confirm(sam, "no deposit")
    await sam.sees(f"{LOT} .bidder-card", "Up to $25.50 a bid")
    assert await answer_to_bid(known, "rheostat", "bob", 30) == "LIMIT_EXCEEDED"
    await press(sam, LOT, "Block")
    await sam.at("#confirm-yes").press("Enter")
    await sam.sees("#reason-error", "Please give a reason")
    await confirm(sam, "has not paid")
    await sam.sees(f"{LOT} .bidder-card", "May not bid here: blocked.")
    await sam.sees(f"{LOT} tbody tr:has-text('bob')", "Blocked")
    assert await answer_to_bid(known, "rheostat", "bob", 20) == "BLOCKED"
    for button in ("Take block back", "Take limit back"):
        await press(sam, LOT, button)
        await confirm(sam, "has paid")
        await expect(sam.at(LOT).get_by_role("button", name=button)).to_be_hidden()
    assert await answer_to_bid(known, "rheostat", "bob", 30) == "accepted"

    # After the end there is nothing to rule. The page asks for it now and then, and when somebody comes back to it.
    await known.call("oda", "operator", "/items/rheostat/cancel", {"reason": "it broke"})
    await sam.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await sam.sees("#who-words", "The bidding is over.")
    await expect(sam.at(LOT).get_by_role("button", name="Block", exact=True)).to_be_hidden()


async def test_a_seller_blocks_somebody_on_all_lots(known: GuardedHouse, lane: Street) -> None:
    for item, seller in (("tantalus", "sue"), ("ustorin", "sue"), ("vernier", "stu")):
        await sells(known, item, seller)
    sue = await signed_in(lane, known, "sue", "seller")
    await sue.sees("#all-title", "Blocked on all of your lots")
    await expect(sue.at("#seller-form")).to_be_hidden()
    # The address of the room does as well as its id.
    await finds(sue, f"{known.base}/items/tantalus")
    await sue.sees("#lot-name", "Lot tantalus")
    await look_up(sue, LOT, "dan")
    await sue.sees(f"{LOT} .bidder-card", "May bid here.")

    await look_up(sue, ALL, "no such/id")
    await sue.sees(f"{ALL} .is-bad", "An id has 1 to 64 letters")
    await look_up(sue, ALL, "dan")
    await sue.sees(f"{ALL} .bidder-card", "May bid on your lots, unless another ruling forbids it.")
    await expect(sue.at(ALL).get_by_role("button", name="Approve")).to_have_count(0)
    await press(sue, ALL, "Block")
    await sue.sees("#confirm-title", "Block dan on all of your lots?")
    await confirm(sue, "did not pay")
    await sue.sees(f"{ALL} .bidder-card", "May not bid on any of your lots.")
    await sue.sees(f"{ALL} tbody tr:has-text('dan')", "Blocked")
    # What is shown of the lot beside it changes with it.
    await sue.sees(f"{LOT} .bidder-card", "Blocked by the seller")
    told = [await answer_to_bid(known, item, "dan", 10) for item in ("tantalus", "ustorin", "vernier")]
    assert told == ["BLOCKED", "BLOCKED", "accepted"]
    await press(sue, ALL, "Take block back")
    await confirm(sue, "has paid")
    await sue.sees(f"{LOT} .bidder-card", "May bid here.")
    await sue.sees(ALL, "Nobody was approved, blocked or limited.")
    assert await answer_to_bid(known, "ustorin", "dan", 10) == "accepted"


async def test_lots_of_others_are_no_seller_s(known: GuardedHouse, lane: Street) -> None:
    await sells(known, "waywiser", "sal")
    await known.create("xylograph", start_price=10, duration_s=3600)
    token = known.token("oda", "operator")
    for path in ("/items/waywiser/bidders/dora/block", "/sellers/sal/bidders/dirk/block"):
        await ruled(known.base, "PUT", path, {"reason": "did not pay"}, token=token)
    sid = await signed_in(lane, known, "sid", "seller", path="/items/waywiser")
    await expect(sid.page.get_by_role("link", name="Who may bid on it")).to_be_hidden()
    await sid.page.get_by_role("link", name="Your lots").click()
    for text, words in (
        ("waywiser", "“waywiser” is sold by sal. Here you say who may bid on lots of your own."),
        ("xylograph", "“xylograph” names no seller, so the house alone says who may bid on it."),
        ("never-there", "No lot has the id “never-there”."),
        ("no such/id", "Give the id of a lot"),
    ):
        await finds(sid, text)
        await sid.sees("#find-error", words)
        await expect(sid.at("#find")).to_be_focused()
        await expect(sid.at("#lot")).to_be_hidden()
    assert "dora" not in await sid.page.content()

    # An auditor looks, at lots of all.
    await sid.page.get_by_role("button", name="Sign out").click()
    await sid.sees("#barred", "Sign in as a seller.")
    aud = await signed_in(lane, known, "aud", "auditor", path="/selling?lot=waywiser")
    await aud.at(LOT).get_by_role("button", name="dora", exact=True).click()
    await aud.sees(f"{LOT} .bidder-card", "May not bid here: blocked.")
    await aud.at(ALL).get_by_role("button", name="dirk", exact=True).click()
    await aud.sees(f"{ALL} .bidder-card", "May not bid on any of the lots of sal.")
    for card in (LOT, ALL):
        await expect(aud.at(f"{card} .bidder-card").get_by_role("button")).to_have_count(0)
    # Nothing of it stays for who comes next.
    await known.end_session(aud)
    await expect(aud.at("#selling")).to_be_hidden()
    assert [name for name in ("dora", "dirk") if name in await aud.page.content()] == []
    await known.sign_in(Person("bea", aud.page, aud.base_url), "bidder")
    await aud.sees("#barred", "Your account may not sell.")


async def test_where_nobody_signs_in_it_is_said_whose_lots(platform: Stack, house: House, street: Street) -> None:
    base = platform.urls.gateway_url
    await house.create("xylometer", seller_id="sol", start_price=10, duration_s=3600)
    for number in range(25):
        await ruled(base, "PUT", f"/sellers/sol/bidders/guest-{number:02}/block")
    sol = await street.person("sol")
    await sol.open_lot("xylometer")
    await sol.page.get_by_role("link", name="Who may bid on it").click()
    await expect(sol.at("#seller")).to_have_value("sol")
    names, following = sol.at(f"{ALL} tbody .who"), sol.at(ALL).get_by_role("button", name="Next page")
    await expect(following).to_be_visible()
    seen = set(await names.all_inner_texts())
    while await following.is_visible():
        first = await names.first.inner_text()
        await following.press("Enter")
        await expect(names.first).not_to_have_text(first)
        seen |= set(await names.all_inner_texts())
    assert seen == {f"guest-{number:02}" for number in range(25)}
    # Another seller's are asked for by name.
    await sol.at("#seller").fill("not an id")
    await sol.page.keyboard.press("Enter")
    await sol.sees("#seller-error", "An id has 1 to 64 letters")
    await sol.at("#seller").fill("sven")
    await sol.page.keyboard.press("Enter")
    await sol.sees(ALL, "Nobody was approved, blocked or limited.")
    await look_up(sol, ALL, "guest-00")
    await press(sol, ALL, "Block")
    await confirm(sol, "did not pay")
    await sol.sees(f"{ALL} .bidder-card", "May not bid on any of the lots of sven.")


async def test_an_answer_that_took_long_does_not_turn_the_price_back(house: House, street: Street) -> None:
    await house.create("zither", seller_id="zed", start_price=10, duration_s=3600)
    zed = await street.person("zed")
    await zed.page.clock.install()
    await zed.open("/selling?lot=zither")
    await zed.sees("#lot-price", "$10.00")
    asked = 0
    is_old, may_come, has_come = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def late(route: Route) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            await route.continue_()
            return
        told = await route.fetch()
        await house.bid("zither", "bob", amount=20)
        is_old.set()
        await may_come.wait()
        await route.fulfill(response=told)
        has_come.set()

    await zed.page.clock.pause_at(await zed.page.evaluate("Date.now() + 500"))
    await zed.page.route("**/api/v1/items/zither?*", late)
    await zed.page.clock.run_for(5_000)
    await eventually(lambda: asked == 1, "the first question")
    # The second answer is to tell of the bid.
    await is_old.wait()
    await zed.page.clock.run_for(5_000)
    await zed.sees("#lot-price", "$20.00")
    async with zed.page.expect_response("**/api/v1/items/zither?*") as answer:
        may_come.set()
    await (await answer.value).finished()
    await has_come.wait()
    # By the time of another answer, what was done with that one is done.
    await zed.page.evaluate("fetch('/config.json').then((answer) => answer.text())")
    await expect(zed.at("#lot-price")).to_have_text("$20.00")
    await expect(zed.at("#lot-bids")).to_have_text("1")


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
async def test_axe_finds_nothing(known: GuardedHouse, lane: Street, size: tuple[int, int], scheme: str) -> None:
    item, user = f"zymometer-{size[0]}-{scheme}", "g" * 64
    await sells(known, item, "ada")
    token = known.token("oda", "operator")
    for what, body in (("approval", {}), ("block", {}), ("limit", {"amount": 1_234_567_890.12})):
        await ruled(known.base, "PUT", f"/items/{item}/bidders/{user}/{what}", body, token=token)
    await ruled(known.base, "PUT", f"/sellers/ada/bidders/{user}/block", {}, token=token)
    ada = await looks(lane, size, scheme)
    await ada.open(f"/selling?lot={item}")
    await known.sign_in(ada, "seller", "operator")
    for part in (LOT, ALL):
        await ada.at(part).get_by_role("button", name=user, exact=True).click()
        await ada.sees(f"{part} .bidder-card", "May not bid")
    assert await findings(ada) == []
    if size == PHONE:
        await ada.page.set_viewport_size({"width": SMALLEST[0], "height": SMALLEST[1]})
    assert await ada.overflow_px() == 0
    await press(ada, LOT, "Change limit")
    await ada.at("#confirm-yes").press("Enter")
    await ada.sees("#amount-error", "Give one amount")
    assert await findings(ada) == []
