"""Who may bid, ruled on the operators' console in a real browser: on a lot, and on all lots."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx2 as httpx
import pytest
import pytest_asyncio
from playwright.async_api import Route, expect

from infrastructure.local.stack import Stack
from tests.acceptance.browsing import House, Person, Street, in_a_browser
from tests.acceptance.guarded import GuardedHouse
from tests.acceptance.test_accessible_in_a_browser import LOOKS, findings, looks
from tests.waiting import eventually

pytestmark = in_a_browser

LOT, ALL = "#lot-bidders", "#house-bidders"


@pytest_asyncio.fixture(loop_scope="session")
async def no_house_rule(known: GuardedHouse) -> AsyncIterator[None]:
    """All lots of the shared platform ask for no approval afterwards, whatever the test has done."""
    yield
    await ruled(known.base, "DELETE", "/approval-required", token=known.token("oda", "operator"))


async def ruled(base: str, method: str, path: str, body: Any = None, *, token: str = "") -> None:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(timeout=30, headers=headers) as http:
        answer = await http.request(method, f"{base}/api/v1{path}", json=body)
    assert answer.status_code == 200, answer.text


async def answer_to_bid(known: GuardedHouse, item: str, user: str, amount: float) -> str:
    """The code of a refusal, or "accepted"."""
    headers = {"authorization": f"Bearer {known.token(user, 'bidder')}"}
    async with httpx.AsyncClient(timeout=30, headers=headers) as http:
        answer = await http.post(f"{known.base}/api/v1/items/{item}/bid", json={"amount": amount})
    said: dict[str, Any] = answer.json()
    return "accepted" if answer.status_code == 201 else str(said["code"])


async def press(person: Person, within: str, button: str) -> None:
    """With the keyboard."""
    await person.at(within).get_by_role("button", name=button, exact=True).focus()
    await person.page.keyboard.press("Enter")
    await expect(person.at("#confirm")).to_be_visible()


async def confirm(person: Person, reason: str) -> None:
    await person.at("#reason").focus()
    await person.page.keyboard.type(reason)
    await person.page.keyboard.press("Tab")
    await person.page.keyboard.press("Enter")
    await expect(person.at("#confirm")).to_be_hidden()


async def look_up(person: Person, within: str, user: str) -> None:
    await person.at(within).get_by_label("Id of the bidder").fill(user)
    await person.page.keyboard.press("Enter")


async def test_an_operator_rules_on_bidders_of_a_lot_with_the_keyboard_alone(
    guarded: Stack, known: GuardedHouse, lane: Street
) -> None:
    await known.create("kaleidoscope", start_price=10, duration_s=3600)
    await known.bid("kaleidoscope", "ann", amount=10)
    await known.bid("kaleidoscope", "bob", amount=20)
    oda = await lane.person("oda")
    await oda.open("/ops")
    await known.sign_in(oda, "operator")
    await oda.at("#find").fill("kaleidoscope")
    await oda.page.keyboard.press("Enter")
    await oda.sees("#who-words", "Everybody who is not blocked may bid.")
    await oda.sees(LOT, "Nobody was approved, blocked or limited.")

    # From the bid itself; nothing is done without a reason.
    await press(oda, "#bids", "Block bob, who bid $20.00")
    await oda.sees("#confirm-words", "Accepted bids stand")
    await oda.sees("#reason-label", "nobody else is told")
    await oda.at("#confirm-yes").press("Enter")
    await oda.sees("#reason-error", "Please give a reason")
    await confirm(oda, "has not paid")
    # The button is gone, so the bidder has the focus.
    await expect(oda.at(f"{LOT} .bidder-name")).to_be_focused()
    await expect(oda.at(f"{LOT} .bidder-name")).to_have_text("bob")
    await oda.sees(f"{LOT} .bidder-card", "May not bid here: blocked.")
    await oda.sees(f"{LOT} tbody", "Blocked")
    await oda.sees("#bids tr:has-text('bob')", "Blocked")
    assert await answer_to_bid(known, "kaleidoscope", "bob", 30) == "BLOCKED"
    await oda.sees("#audit tr:has-text('Blocked bob')", "oda")
    await oda.sees("#audit tr:has-text('Blocked bob')", "has not paid")
    connection = await asyncpg.connect(guarded.urls.postgres_url)
    query = "SELECT to_jsonb(r)::text FROM rulings AS r WHERE item_id = 'kaleidoscope'"
    try:

        async def archived() -> bool:
            kept = [json.loads(row) for (row,) in await connection.fetch(query)]
            return [(row["ruling"], row["reason"], row["actor"]) for row in kept] == [("block", "has not paid", "oda")]

        await eventually(archived, seconds=60)
    finally:
        await connection.close()
    await press(oda, LOT, "Take block back")
    await confirm(oda, "has paid")
    await oda.sees(f"{LOT} .bidder-card", "May bid here.")
    await expect(oda.at(LOT).get_by_role("button", name="Block", exact=True)).to_be_focused()

    # A limit needs one amount, and the one that is wrong gets the focus.
    await look_up(oda, LOT, "ann")
    await expect(oda.at(f"{LOT} .bidder-name")).to_have_text("ann")
    await expect(oda.at(f"{LOT} .bidder-name")).to_be_focused()
    await press(oda, LOT, "Limit")
    await expect(oda.page.get_by_label("Highest amount of one bid (USD)")).to_be_focused()
    await oda.page.keyboard.type("much")
    await oda.at("#reason").fill("no deposit")
    await oda.page.keyboard.press("Tab")
    await oda.page.keyboard.press("Enter")
    await oda.sees("#amount-error", "Give one amount")
    await expect(oda.at("#amount")).to_be_focused()
    await oda.at("#amount").fill("25.50")
    await oda.page.keyboard.press("Enter")
    await expect(oda.at("#confirm")).to_be_hidden()
    await oda.sees(f"{LOT} .bidder-card", "Up to $25.50 a bid")
    assert await answer_to_bid(known, "kaleidoscope", "ann", 30) == "LIMIT_EXCEEDED"
    await press(oda, LOT, "Take limit back")
    await confirm(oda, "the deposit came")
    await expect(oda.at(f"{LOT} .bidder-name")).to_be_focused()
    await expect(oda.at(LOT).get_by_role("button", name="Take limit back")).to_be_hidden()
    assert await answer_to_bid(known, "kaleidoscope", "ann", 30) == "accepted"

    # After the end there is nothing to rule.
    await known.call("oda", "operator", "/items/kaleidoscope/cancel", {"reason": "it broke"})
    await oda.sees("#who-words", "The bidding is over.")
    await expect(oda.at(LOT).get_by_role("button", name="Block", exact=True)).to_be_hidden()
    await expect(oda.at("#bids").get_by_role("button")).to_have_count(0)


async def test_an_operator_rules_on_bidders_of_the_house(
    known: GuardedHouse, lane: Street, no_house_rule: None
) -> None:
    await known.create("loupe", start_price=10, duration_s=3600, currency="EUR")
    oda = await lane.person("oda")
    await oda.open("/ops?lot=loupe")
    await known.sign_in(oda, "operator")
    await oda.at("#find").fill("loupe")
    await oda.page.keyboard.press("Enter")
    await oda.sees("#who-words", "Everybody who is not blocked may bid.")
    await look_up(oda, ALL, "no such/id")
    await oda.sees(f"{ALL} .is-bad", "An id has 1 to 64 letters")
    await look_up(oda, ALL, "dora")
    await oda.sees(f"{ALL} .bidder-card", "May bid on lots that do not require approval.")
    await oda.sees(f"{ALL} .figures", "Not counted")

    await oda.at("#spending-currency").select_option("EUR")
    await press(oda, ALL, "Limit")
    await oda.at("#amount").fill("100")
    await confirm(oda, "until we know her")
    await oda.sees(f"{ALL} .figures", "Spending limit€100.00")
    await known.bid("loupe", "dora", amount=10, max_amount=60)
    await look_up(oda, ALL, "dora")
    await oda.sees(f"{ALL} .figures", "Leads with€60.00")
    await oda.sees(f"{ALL} .figures", "May still lead with€40.00")
    # It is of one currency.
    await oda.at("#spending-currency").select_option("USD")
    await oda.sees(f"{ALL} .figures", "Spending limitNone")

    await press(oda, "#console", "Require approval on all lots")
    await confirm(oda, "a sale for members")
    await oda.sees("#approval-words", "All lots require approval.")
    await oda.sees("#who-words", "All lots require approval.")
    await oda.sees(f"{ALL} .bidder-card", "May bid only on lots where they are approved.")
    assert await answer_to_bid(known, "loupe", "dora", 70) == "NOT_APPROVED"
    await press(oda, ALL, "Approve")
    await confirm(oda, "a member")
    await oda.sees(f"{ALL} .bidder-card", "May bid on lots that require approval.")
    await look_up(oda, LOT, "dora")
    await oda.sees(f"{LOT} .bidder-card", "Approved on all lots")
    await press(oda, ALL, "Block")
    await confirm(oda, "she left")
    await oda.sees(f"{ALL} .bidder-card", "May not bid on any lot.")
    await oda.sees(f"{ALL} tbody tr:has-text('dora')", "Blocked")
    assert await answer_to_bid(known, "loupe", "dora", 70) == "BLOCKED"
    await press(oda, "#console", "No longer require approval")
    await confirm(oda, "the sale is over")
    await oda.sees("#who-words", "Everybody who is not blocked may bid.")


async def test_what_is_refused_is_said_in_the_question(known: GuardedHouse, lane: Street) -> None:
    await known.create("mortar", start_price=10, duration_s=3600)
    oda = await lane.person("oda")
    await oda.open("/ops")
    await known.sign_in(oda, "operator")
    await look_up(oda, ALL, "eve")
    await press(oda, ALL, "Block")
    # Bounds, a lost shard and a lost role cannot be had here at will; so the answers are the gateway's, and made up.
    told = [
        (409, "TOO_MANY_RULINGS", "something was ruled on 100000 bidders already", "Nothing was changed."),
        (503, "UNAVAILABLE", "it does not hold everywhere yet", "The decision reaches all lots by itself"),
        (403, "FORBIDDEN", "this needs the role operator", "Sign in as somebody who may rule on bidders."),
    ]
    pattern = re.compile("/bidders/eve/block$")
    made_up: dict[str, Any] = {}

    async def refuse(route: Route) -> None:
        await route.fulfill(content_type="application/problem+json", **made_up)

    await oda.page.route(pattern, refuse)
    for status, code, detail, advice in told:
        made_up.update(status=status, body=json.dumps({"code": code, "detail": detail}))
        await oda.at("#reason").fill("has not paid")
        await oda.at("#confirm-yes").press("Enter")
        await oda.sees("#reason-error", detail[1:])
        await oda.sees("#reason-error", advice)
        await expect(oda.at("#confirm-yes")).to_have_attribute("aria-disabled", "false")
    await oda.page.unroute(pattern)
    # What was typed is still there, and the next attempt does it.
    await oda.at("#confirm-yes").press("Enter")
    await expect(oda.at("#confirm")).to_be_hidden()
    await oda.sees(f"{ALL} .bidder-card", "May not bid on any lot.")


async def test_auditors_read_what_was_ruled(known: GuardedHouse, lane: Street) -> None:
    await known.create("nocturnal", start_price=10, duration_s=3600, approval_required=True)
    token = known.token("oda", "operator")
    await ruled(known.base, "PUT", "/items/nocturnal/bidders/ann/approval", {"reason": "known"}, token=token)
    await known.bid("nocturnal", "ann", amount=10)
    aud = await lane.person("aud")
    await aud.open("/ops")
    await known.sign_in(aud, "auditor")
    await aud.at("#find").fill("nocturnal")
    await aud.page.keyboard.press("Enter")
    await aud.sees("#who-words", "This lot requires approval.")
    await aud.at(LOT).get_by_role("button", name="ann", exact=True).click()
    await aud.sees(f"{LOT} .bidder-card", "May bid here.")
    await look_up(aud, ALL, "ann")
    await aud.sees(f"{ALL} .bidder-card", "May bid")
    for name in (re.compile("Approve|approval"), re.compile("Block|block"), re.compile("Limit|limit")):
        await expect(aud.page.get_by_role("button", name=name)).to_have_count(0)


async def test_many_bidders_come_page_by_page(platform: Stack, house: House, street: Street) -> None:
    await house.create("portolan", start_price=10, duration_s=3600)
    for number in range(45):
        body = {"amount": 10 + number} if number % 2 else {"reason": "known"}
        what = "limit" if number % 2 else "approval"
        path = f"/items/portolan/bidders/guest-{number:02}/{what}"
        await ruled(platform.urls.gateway_url, "PUT", path, body)
    ada = await street.person("ada")
    await ada.open("/ops?lot=portolan")
    rows = ada.at(f"{LOT} tbody tr")
    seen: list[str] = []
    for count in (20, 20, 5):
        await expect(rows).to_have_count(count)
        seen += await ada.at(f"{LOT} tbody .who").all_inner_texts()
        await ada.sees(LOT, f"From {seen[-count]} to {seen[-1]}.")
        if count == 20:
            await ada.at(LOT).get_by_role("button", name="Next page").press("Enter")
            await ada.sees(f"{LOT} tbody", f"guest-{len(seen):02}")
    assert seen == [f"guest-{number:02}" for number in range(45)]
    await expect(ada.at(LOT).get_by_role("button", name="First page")).to_be_focused()
    await ada.page.keyboard.press("Enter")
    await ada.sees(f"{LOT} tbody", "guest-00")
    await ada.sees(f"{LOT} tbody tr:has-text('guest-01')", "Up to $11.00 a bid")


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
async def test_axe_finds_nothing(
    platform: Stack, house: House, street: Street, size: tuple[int, int], scheme: str
) -> None:
    item, user = f"planisphere-{size[0]}-{scheme}", "g" * 64
    await house.create(item, start_price=1_234_567_890.12, duration_s=3600)
    await house.bid(item, user, amount=2_345_678_901.23)
    base = platform.urls.gateway_url
    for what, body in (("approval", {}), ("block", {}), ("limit", {"amount": 1_234_567_890.12})):
        await ruled(base, "PUT", f"/items/{item}/bidders/{user}/{what}", body)
    await ruled(base, "PUT", "/bidders/gus/approval", {})
    ada = await looks(street, size, scheme)
    await ada.open(f"/ops?lot={item}")
    await look_up(ada, ALL, "gus")
    await ada.sees(f"{ALL} .bidder-card", "May bid")
    await ada.at(LOT).get_by_role("button", name=user, exact=True).click()
    await ada.sees(f"{LOT} .bidder-card", "May not bid here")
    assert await findings(ada) == []
    assert await ada.overflow_px() == 0
    await press(ada, LOT, "Change limit")
    await ada.at("#confirm-yes").press("Enter")
    await ada.sees("#amount-error", "Give one amount")
    assert await findings(ada) == []
