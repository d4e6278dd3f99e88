"""The pages in a real browser with the whole stack: what a seller and two bidders see and do."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

from playwright.async_api import expect

from infrastructure.local.stack import Stack
from tests.acceptance.browsing import PHONE, House, Person, Street, in_a_browser
from tests.waiting import eventually

pytestmark = in_a_browser


def after(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def test_two_browsers_see_the_same_bid_and_a_reload_keeps_it(house: House, street: Street) -> None:
    await house.create("sextant", start_price=100, duration_s=3600)
    ada, bob = await street.person("ada.lovelace"), await street.person("bob", size=PHONE)
    await ada.open_lot("sextant")
    await bob.open_lot("sextant")
    await bob.sees("#history-empty", "No bids yet")

    await ada.bids("120")

    await ada.sees("#verdict", "Your bid of $120.00 was accepted. You lead.")
    await ada.sees("#standing", "You lead")
    await ada.sees("#leader", "You")
    alias = (await house.item("sextant"))["highest_bidder"]
    for person in (bob, ada):
        await person.sees("#price", "$120.00")
        await expect(person.at("#history-rows tr")).to_have_count(1)
    await bob.sees("#leader", alias)
    await bob.sees("#history-rows", alias)
    assert "lovelace" not in await bob.page.inner_text("body")

    await bob.bids("122.50")
    await bob.sees("#standing", "You lead")
    await ada.sees("#standing", "You were outbid")
    await expect(ada.at("#verdict")).to_be_empty()
    await expect(ada.at("#amount")).to_have_value("125.00")

    for person in (ada, bob):
        await person.reload_lot()
        await person.sees("#price", "$122.50")
        await expect(person.at("#history-rows tr")).to_have_count(2)
        await expect(person.at("#history-rows .is-own")).to_have_count(1)
    await ada.sees("#standing", "You were outbid")
    await bob.sees("#standing", "You lead")
    # Lots of other tests may close sooner, and fill the first page.
    await bob.open("/?q=sextant")
    card = '.card[data-id="sextant"]'
    await bob.sees(card, "You lead")
    await ada.bids("300")
    await bob.sees(card, "$300.00")
    await bob.sees(card, "You were outbid")


async def test_a_lot_with_all_terms_is_made_through_the_form(house: House, street: Street) -> None:
    await house.create("clock-1889", start_price=1)
    seller = await street.person("harbour-house", size=PHONE)
    page = seller.page
    await seller.open("/")
    await page.get_by_role("link", name="Add a lot").first.click()
    await page.get_by_label("Name", exact=True).fill("Carriage clock, Paris")
    await page.get_by_label("Description").fill("Striking, with its <key> & case")
    await page.get_by_label("Start price").fill("50")
    await page.get_by_label("Currency").select_option("EUR")
    await page.get_by_label("Closes", exact=True).select_option("at")
    await page.get_by_label("Day and time of the close").fill(f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%dT%H:%M}")
    await page.get_by_text("More terms").click()
    await page.get_by_label("Reserve").fill("40")
    await page.get_by_label("Buy-now price").fill("900")
    await page.get_by_role("radio", name="Steps of your own").check()
    await page.get_by_label("Below", exact=True).first.fill("100")
    await page.get_by_label("a bid adds").first.fill("4")
    await page.get_by_label("a bid adds").last.fill("7.50")
    await page.get_by_role("radio", name="15 min / 15 min").check()
    await page.get_by_label("Seller").fill("harbour-house")
    await page.get_by_label("Id of the lot").fill("clock-1889")
    await seller.sees("#words", "A bid in the last 15 minutes moves the close by another 15 minutes")
    await seller.sees("#words", "€4.00 below €100.00, €7.50 from there on")

    # Errors that the page finds are shown at their fields; then those that the server finds.
    await seller.at("#submit").click()
    await seller.sees("#error-reserve_price", "must be at least the start price")
    await expect(page.get_by_label("Reserve")).to_be_focused()
    await page.get_by_label("Reserve").fill("600")
    await expect(seller.at("#error-reserve_price")).to_be_empty()
    await seller.at("#submit").click()
    await seller.sees("#error-id", "exists already")
    await expect(page.get_by_label("Name", exact=True)).to_have_value("Carriage clock, Paris")
    await expect(page.get_by_label("Reserve")).to_have_value("600")
    await page.get_by_label("Id of the lot").fill("")
    await seller.at("#submit").click()

    await page.wait_for_url(re.compile(r"/items/carriage-clock-paris-[a-z0-9]{6}$"))
    await seller.is_live()
    await seller.sees("#notice", "This is your lot")
    await seller.sees("#description", "Striking, with its <key> & case")
    item_id = page.url.rpartition("/")[2]
    await house.bid(item_id, "ada", amount=50)
    await seller.sees("#reserve", "Reserve not met")
    item = await house.item(item_id)
    assert (item["currency"], item["start_price"], item["min_next_bid"]) == ("EUR", 50, 54)
    assert (item["buy_now_price"], item["buy_now_available"], item["reserve_met"]) == (900, True, False)
    assert item["seller_id"] == "harbour-house"
    await house.bid(item_id, "bob", max_amount=650)
    await seller.sees("#reserve", "Reserve met")
    assert (await house.item(item_id))["min_next_bid"] == 607.5
    for path in ("/", "/sell", f"/items/{item_id}"):
        await seller.open(path)
        assert await seller.overflow_px() == 0, f"{path} scrolls sideways on a phone"


async def test_a_maximum_leads_is_outbid_and_wins(house: House, street: Street) -> None:
    await house.create("violin", start_price=1, duration_s=3600)
    ada, bob = await street.person("ada"), await street.person("bob")
    await ada.open_lot("violin")
    await bob.open_lot("violin")

    await bob.leaves_maximum("50")
    await bob.sees("#verdict", "Your maximum of $50.00 stands. You lead at $1.00.")
    await bob.sees("#maximum", "Your maximum: $50.00")
    await ada.bids("10")
    await ada.sees("#verdict", "was accepted, but another bidder's maximum is at least as high")
    await bob.sees("#price", "$10.50")
    await bob.sees("#history-rows", "Automatic")

    await ada.leaves_maximum("60")
    await ada.sees("#standing", "You lead")
    await bob.sees("#standing", "You were outbid")
    await bob.sees("#maximum", "Your maximum was $50.00.")
    await bob.bids("10")
    await bob.sees("#verdict", "$10.00 is too low. The minimum is now $52.00.")
    await bob.leaves_maximum("80")
    await bob.sees("#verdict", "Your maximum of $80.00 stands. You lead at $61.00.")
    await bob.leaves_maximum("70")
    await bob.sees("#verdict", "A maximum can only be raised.")
    await bob.leaves_maximum("90")
    await bob.sees("#verdict", "Your maximum is raised to $90.00. The price stays at $61.00")
    await bob.reload_lot()
    await bob.sees("#maximum", "Your maximum: $90.00")
    await ada.sees("#price", "$61.00")
    told = {value for frame in ada.heard for value in json.loads(frame).values() if isinstance(value, int | float)}
    assert 61 in told
    assert not {80, 90} & told, "a maximum must not reach anybody else"


async def test_the_end_is_told_to_who_won_and_to_who_lost(house: House, street: Street) -> None:
    ada, bob = await street.person("ada"), await street.person("bob")
    # On a busy machine the test may be late, but the page still tells the end.
    await house.create("viola", start_price=1, duration_s=12)
    await house.bid("viola", "ada", amount=10)
    await house.bid("viola", "bob", amount=61)
    await ada.open_lot("viola")
    await bob.open_lot("viola")

    await bob.sees("#standing", "You won this lot")
    await bob.sees("#notice", "The lot is yours, at $61.00.")
    await ada.sees("#notice", f"Sold to {(await house.item('viola'))['highest_bidder']} at $61.00.")
    await ada.sees("#standing", "You were outbid")
    await ada.reload_lot()
    await ada.sees("#status", "Sold")
    await expect(ada.at("#bid-form")).to_be_hidden()


async def has_the_right_time(house: House, person: Person, item_id: str) -> None:
    """The clock on the page gets right to about two seconds: a busy browser draws late, and draws again."""
    end = datetime.fromisoformat((await house.item(item_id))["end_time"])

    async def is_right() -> bool:
        most = (end - datetime.now(UTC)).total_seconds()
        left = await person.seconds_left()
        least = (end - datetime.now(UTC)).total_seconds()
        return least - 1 <= left <= most + 2

    await eventually(is_right)


async def test_the_clock_is_the_servers_and_a_late_bid_extends(house: House, street: Street) -> None:
    soft_close = {"trigger_s": 120, "extend_s": 300, "mode": "from_end"}
    await house.create("globe", start_price=10, duration_s=110, soft_close=soft_close)
    ada = await street.person("ada")
    # A local clock that is wrong by an hour must not matter.
    bob = await street.person("bob", script="const real = Date.now; Date.now = () => real() + 3_600_000;")
    for person in (ada, bob):
        await person.open_lot("globe")
        await expect(person.at("#end")).to_have_attribute("data-pace", "urgent")
        await has_the_right_time(house, person, "globe")
    left = await ada.at("#countdown").inner_text()
    await expect(ada.at("#countdown")).not_to_have_text(left)

    await ada.bids("10")

    for person in (ada, bob):
        await person.sees("#extended", "Extended by 5 minutes. The bidding now closes at")
        await expect(person.at("#end")).to_have_attribute("data-pace", "soon")
        await has_the_right_time(house, person, "globe")
        await person.sees("#end-first", "It was first scheduled to close on")


async def test_what_operators_do_is_shown_with_its_reason(house: House, street: Street) -> None:
    ada = await street.person("ada")
    await house.create("kettle", start_price=30, start_time=after(3600))
    await ada.open_lot("kettle")
    await ada.sees("#end-label", "Opens in")
    await ada.sees("#notice", "The bidding opens on")
    await house.create("teapot", start_price=30, start_time=after(2), end_time=after(4000), buy_now_price=400)
    await ada.open_lot("teapot")
    await ada.sees("#status", "Open")
    await expect(ada.at("#buy-now")).to_have_text("Buy now for $400.00")

    await ada.leaves_maximum("35")
    await ada.sees("#maximum", "$35.00")
    struck = await house.bid("teapot", "bob", amount=200)
    await ada.sees("#price", "$200.00")
    await house.operate("teapot", f"bids/{struck['bid_id']}/void", "the bidder could not be reached")
    await ada.sees("#price", "$30.00")
    await ada.sees("#fall", "A bid was voided, so the price fell. The bidder could not be reached.")
    await ada.sees("#history-rows .is-struck", "The bidder could not be reached.")
    await ada.sees("#standing", "You lead")

    await house.operate("teapot", "pause", "the lid is looked at")
    await ada.sees("#notice", "The bidding is paused, and the remaining time is kept. The lid is looked at.")
    stopped = await ada.seconds_left()
    await ada.reload_lot()
    await ada.sees("#notice", "The lid is looked at.")
    assert await ada.seconds_left() == stopped
    await expect(ada.at("#history-rows .is-struck")).to_have_count(1)
    await house.operate("teapot", "resume", "it is fine")
    await expect(ada.at("#bid-form")).to_be_visible()
    await house.operate("teapot", "cancel", "the owner keeps it")
    await ada.sees("#notice", "This lot was withdrawn from the sale. The owner keeps it.")
    await ada.reload_lot()
    await ada.sees("#notice", "The owner keeps it.")

    await house.create("vase", start_price=20, reserve_price=100, buy_now_price=250, duration_s=3600)
    await ada.open_lot("vase")
    await ada.at("#buy-now").click()
    await ada.page.get_by_role("button", name="Not now").click()
    assert (await house.item("vase"))["status"] == "open"
    await ada.bids("250")
    await ada.page.get_by_role("button", name="Yes, buy for $250.00").click()
    await ada.sees("#notice", "The lot is yours, at $250.00.")


async def test_the_description_of_the_api_needs_no_other_host(platform: Stack, street: Street) -> None:
    reader = await street.person("reader")
    asked: list[str] = []
    reader.page.on("request", lambda request: asked.append(request.url))
    await reader.open("/docs")
    health = reader.page.locator("#reference .opblock", has_text="/health").first
    await health.get_by_role("button").first.click()
    await health.get_by_role("button", name="Try it out").click()
    await health.get_by_role("button", name="Execute").click()
    await expect(health.locator(".live-responses-table")).to_contain_text('"status": "healthy"')
    # Descriptions are HTML that Swagger UI makes.
    await expect(reader.at("#reference .info strong").first).to_have_text("Money")
    strangers = [url for url in asked if not url.startswith((platform.urls.gateway_url, "data:", "blob:"))]
    assert strangers == []
    assert f"{platform.urls.gateway_url}/health" in asked
