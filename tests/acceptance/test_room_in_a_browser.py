"""The pages in a real browser: live through restarts, outages and silence; numbers of viewers, and standings.

All tests share the platform, so a test restarts what it stops before it ends.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Route, WebSocket, expect

from infrastructure.local.services import API_GATEWAY, BROADCAST_SERVICE
from infrastructure.local.stack import Stack
from tests.acceptance.browsing import PHONE, House, Person, Street, in_a_browser
from tests.waiting import eventually

pytestmark = in_a_browser

FAR = "2099-01-01T00:00:00Z"


@asynccontextmanager
async def without(platform: Stack, *names: str) -> AsyncIterator[None]:
    """Kill these processes, and restart them after the block, even if it fails."""
    for name in names:
        platform.kill(name, signal.SIGKILL)
        assert await platform.wait_ended(name)
    try:
        yield
    finally:
        for name in names:
            await platform.start_process(name)


@asynccontextmanager
async def frozen(platform: Stack, name: str) -> AsyncIterator[None]:
    """Suspend this process during the block: its connections stay open and silent."""
    platform.kill(name, signal.SIGSTOP)
    try:
        yield
    finally:
        platform.kill(name, signal.SIGCONT)


async def has_every_bid_once(person: Person, prices: list[float]) -> None:
    """The list shows these prices, newest first, and the feed sent each of these bids once and in order."""
    rows = person.at("#history-rows tr")
    await expect(rows).to_have_count(len(prices))
    for row, price in zip(await rows.all(), reversed(prices), strict=True):
        await expect(row).to_contain_text(f"${price:,.2f}")
    # The test hears a frame apart from what the page shows of it.
    await eventually(lambda: [frame["amount"] for frame in person.frames("bid")] == prices, f"bids of {prices}")
    told = [(frame["epoch"], frame["seq"]) for frame in person.frames("bid")]
    assert told == sorted(set(told))
    assert [frame["amount"] for frame in person.frames("bid")] == prices


async def test_after_a_restart_of_the_feed_nothing_is_missed(platform: Stack, house: House, street: Street) -> None:
    await house.create("almanac", start_price=5, duration_s=3600)
    ada = await street.person("ada")
    await ada.open_lot("almanac")
    await house.bid("almanac", "bob", amount=5)
    await ada.sees("#price", "$5.00")

    async with without(platform, BROADCAST_SERVICE):
        await ada.sees("#connection-text", "Reconnecting…")
        for amount in (6, 7, 8):
            await house.bid("almanac", "bob", amount=amount)
        # Without the feed, each attempt to reconnect also asks the API.
        await ada.sees("#price", "$8.00")
        await ada.sees("#link-note", "The price may have moved.")

    await ada.is_live()
    await expect(ada.at("#link-note")).to_be_hidden()
    await house.bid("almanac", "bob", amount=9)
    await ada.sees("#price", "$9.00")
    await has_every_bid_once(ada, [5, 6, 7, 8, 9])


async def test_a_bid_survives_the_restart_of_gateway_and_feed(platform: Stack, house: House, street: Street) -> None:
    await house.create("atlas", start_price=5, duration_s=3600)
    ada, bob = await street.person("ada"), await street.person("bob")
    await ada.open_lot("atlas")
    await bob.open_lot("atlas")
    async with without(platform, API_GATEWAY, BROADCAST_SERVICE):
        await bob.sees("#connection-text", "Reconnecting…")
        await ada.bids("7")
        await ada.sees("#verdict", "asking again with the same bid, so it cannot count twice")

    await ada.sees("#verdict", "Your bid of $7.00 was accepted.")
    for person in (ada, bob):
        await person.is_live()
        await person.sees("#price", "$7.00")
        await expect(person.at("#history-rows tr")).to_have_count(1)
    assert (await house.item("atlas"))["bid_count"] == 1


async def test_offline_is_said_and_coming_back_brings_what_was_missed(house: House, street: Street) -> None:
    await house.create("barometer", start_price=40, duration_s=3600)
    ada = await street.person("ada")
    await ada.open_lot("barometer")
    await house.bid("barometer", "bob", amount=40)
    await ada.sees("#price", "$40.00")

    await ada.goes_offline(True)
    await ada.sees("#connection-text", "Offline")
    for amount in (50, 60):
        await house.bid("barometer", "bob", amount=amount)
    await ada.sees("#price", "$40.00")
    await ada.goes_offline(False)

    await ada.is_live()
    await ada.sees("#price", "$60.00")
    await has_every_bid_once(ada, [40, 50, 60])


async def test_a_page_that_comes_back_from_the_history_is_live_again(house: House, street: Street) -> None:
    await house.create("gyroscope", start_price=40, duration_s=3600)
    ada = await street.person("ada")
    sockets: list[WebSocket] = []
    ada.page.on("websocket", lambda socket: sockets.append(socket))
    await ada.open_lot("gyroscope")
    await house.bid("gyroscope", "bob", amount=40)
    await ada.sees("#price", "$40.00")
    tell = "(name) => dispatchEvent(new PageTransitionEvent(name, { persisted: true }))"
    await ada.page.evaluate(tell, "pagehide")

    async def has_let_go() -> bool:
        return sockets[0].is_closed()

    # Browsers do not keep pages with an open connection in the back-forward cache.
    await eventually(has_let_go, seconds=60)
    await house.bid("gyroscope", "bob", amount=50)
    await ada.page.evaluate(tell, "pageshow")
    await ada.sees("#price", "$50.00")
    await ada.is_live()
    await has_every_bid_once(ada, [40, 50])


async def test_a_feed_that_refuses_for_good_is_replaced_by_asking(house: House, street: Street) -> None:
    await house.create("pantograph", start_price=40, duration_s=3600)
    ada = await street.person("ada")
    await ada.page.clock.install()
    await ada.page.route_web_socket("**/ws", lambda socket: socket.close(code=4404))
    await ada.open("/items/pantograph")
    await ada.sees("#connection-text", "Not live")
    await house.bid("pantograph", "bob", amount=50)
    await ada.page.clock.fast_forward(10_000)
    await ada.sees("#price", "$50.00")
    await ada.sees("#link-note", "This page is no longer live")


async def test_a_short_break_asks_the_gateway_nothing(house: House, street: Street) -> None:
    await house.create("heliograph", start_price=40, duration_s=3600)
    # With the longest random waits, the page reconnects before it would ask.
    ada = await street.person("ada", script="Math.random = () => 0.999;")
    asked: list[str] = []
    ada.page.on("request", lambda request: asked.append(request.url))
    sockets: list[Any] = []

    def join(socket: Any) -> None:
        socket.connect_to_server()
        sockets.append(socket)

    await ada.page.route_web_socket("**/ws", join)
    await ada.page.clock.install(time=0)
    async with ada.page.expect_response("**/api/v1/feed-ticket"):
        await ada.open_lot("heliograph")
    # From here on the test controls the time, however slow the machine is.
    await ada.page.clock.pause_at(100)
    asked.clear()
    await sockets[-1].close(code=1012)
    await ada.sees("#connection-text", "Reconnecting…")
    await ada.page.clock.run_for(800)
    await ada.is_live()
    await ada.page.clock.run_for(1_500)
    await ada.page.clock.resume()
    await house.bid("heliograph", "bob", amount=40)
    await ada.sees("#price", "$40.00")
    # But for its ticket, which is good for one connection.
    assert [url for url in asked if not url.endswith("/feed-ticket")] == []


async def test_a_connection_that_says_nothing_is_replaced(platform: Stack, house: House, street: Street) -> None:
    await house.create("metronome", start_price=10, duration_s=3600)
    ada = await street.person("ada")
    await ada.open_lot("metronome")

    async with frozen(platform, BROADCAST_SERVICE):
        # The connection stays open: only the heartbeats are missing.
        await ada.sees("#connection-text", "Reconnecting…")

    await ada.is_live()
    await house.bid("metronome", "bob", amount=10)
    await ada.sees("#price", "$10.00")
    await has_every_bid_once(ada, [10])


async def test_a_feed_without_events_is_shown_as_delayed(platform: Stack, house: House, street: Street) -> None:
    await house.create("telescope", start_price=200, duration_s=3600)
    ada = await street.person("ada")
    await ada.open_lot("telescope")

    async with without(platform, "nats"):
        await ada.sees("#connection-text", "Delayed")
        await ada.sees("#link-note", "the live feed is catching up")
        await ada.bids("200")
        await ada.sees("#verdict", "Your bid of $200.00 was accepted. You lead.")
        # Only the API tells it, which the page asks every few seconds meanwhile.
        await house.bid("telescope", "bob", amount=250)
        await ada.sees("#price", "$250.00")
        await ada.sees("#standing", "You were outbid")
        await ada.sees("#connection-text", "Delayed")

    await ada.is_live()
    await expect(ada.at("#link-note")).to_be_hidden()
    await house.bid("telescope", "bob", amount=300)
    await ada.sees("#price", "$300.00")
    await has_every_bid_once(ada, [200, 250, 300])


async def test_bids_that_another_answer_has_brought_are_not_said_to_be_missing(house: House, street: Street) -> None:
    await house.create("nonant", start_price=10, duration_s=3600)
    await house.bid("nonant", "bob", amount=10)
    ada = await street.person("ada")
    asked = 0
    may_fail = asyncio.Event()

    async def fail_late(route: Route) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            await route.continue_()
            return
        await may_fail.wait()
        await route.abort()

    await ada.page.route("**/api/v1/items/nonant/bids?*", fail_late)
    await ada.open_lot("nonant")
    await house.bid("nonant", "cyd", amount=20)
    await expect(ada.at("#history-rows tr")).to_have_count(2)
    async with ada.page.expect_event("requestfailed"):
        may_fail.set()
    await house.bid("nonant", "bob", amount=30)
    await expect(ada.at("#history-rows tr")).to_have_count(3)
    await expect(ada.at("#history-note")).to_be_empty()


async def test_the_room_says_how_many_watch(house: House, street: Street) -> None:
    await house.create("orrery", start_price=10, duration_s=3600)
    ada, bob = await street.person("ada"), await street.person("bob", size=PHONE)
    await ada.open_lot("orrery")
    await expect(ada.at("#viewers")).to_have_text("1")
    await bob.open_lot("orrery")
    for person in (ada, bob):
        await expect(person.at("#viewers")).to_have_text("2")
    await bob.open("/")
    await expect(ada.at("#viewers")).to_have_text("1")


async def test_a_bidder_is_told_how_they_stand_in_any_browser(house: House, street: Street) -> None:
    await house.create("lute", start_price=20, duration_s=3600)
    ada = await street.person("ada")
    await ada.takes_the_lead("lute", "20")
    # Her other browser does not know of the bid; only the private channel can tell it.
    elsewhere = await street.person("ada", size=PHONE)
    await house.bid("lute", "bob", amount=30)
    # So the feed has the bid before it is asked elsewhere.
    await ada.sees("#standing", "You were outbid")
    await elsewhere.open_lot("lute")
    await elsewhere.sees("#standing", "You were outbid")
    # Only the lots in view are followed.
    await elsewhere.open("/?sort=newest")
    await elsewhere.sees('.card[data-id="lute"]', "You were outbid")

    await ada.sees("#alert", "You were outbid. The price is $30.00.")
    await expect(ada.page).to_have_title(re.compile(r"^Outbid · \$30\.00 · Lot lute$"))
    await ada.page.get_by_label("Bidding as").fill("cleo")
    await ada.page.keyboard.press("Tab")
    await expect(ada.at("#standing")).to_be_hidden()
    told = [frame["standing"] for frame in elsewhere.frames("standing") if frame["item_id"] == "lute"]
    assert set(told) == {"outbid"}


async def test_without_the_private_channel_the_page_knows_what_it_saw(house: House, street: Street) -> None:
    await house.create("harp", start_price=20, duration_s=3600)
    ada = await street.person("ada")
    asked: list[str] = []

    async def refuse(route: Any) -> None:
        asked.append(route.request.url)
        await route.fulfill(status=403, content_type="application/problem+json", body='{"code":"IDENTITY_REQUIRED"}')

    await ada.page.route("**/api/v1/feed-ticket", refuse)
    await ada.takes_the_lead("harp", "20")
    await house.bid("harp", "bob", amount=30)
    await ada.sees("#standing", "You were outbid")
    await ada.reload_lot()
    await ada.sees("#standing", "You were outbid")
    assert len(asked) == 2, "one refusal is enough for a page"
    assert ada.frames("standing") == []
    # A void is told by the public event, and by the history to who returns.
    [own] = [frame for frame in ada.frames("bid") if frame["amount"] == 20][:1]
    await house.operate("harp", f"bids/{own['bid_id']}/void", "entered by mistake")
    await ada.sees("#struck", "Your bid of $20.00 was voided by the auctioneer: Entered by mistake.")
    await ada.reload_lot()
    await ada.sees("#struck", "Your bid of $20.00 was voided by the auctioneer.")


# A window of 1280 px at 400 % (WCAG 1.4.10).
NARROW = (320, 640)
LONG = "Anhydrobenzaldehydphenylhydrazonsulfonsäurekatalogisierungsverzeichnis"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_a_small_phone_nothing_scrolls_sideways(house: House, street: Street, scheme: Any) -> None:
    item = f"phone-{scheme}"
    terms: dict[str, Any] = {"start_price": 1_234_567_890.12, "reserve_price": 2_345_678_901.23, "seller_id": "s" * 64}
    soft_close = {"trigger_s": 901, "extend_s": 899, "max_count": 77}
    await house.create(item, description=LONG * 3, duration_s=3600, soft_close=soft_close, **terms)
    await house.bid(item, "bob", max_amount=1_500_000_000)
    await house.bid(item, "b" * 64, max_amount=1_600_000_000)
    ada = await street.person("ada", size=NARROW)
    await ada.page.emulate_media(color_scheme=scheme)
    for path in (f"/items/{item}", "/", "/?status=open&q=phone", "/sell", "/items/no%20lot"):
        await ada.open(path)
        assert await ada.overflow_px() == 0, path
    await ada.open_lot(item)
    await ada.leaves_maximum("1700000000")
    await ada.sees("#verdict", "Your maximum of $1,700,000,000.00 stands.")
    await expect(ada.at("#chart .chart-line")).to_have_count(1)
    assert await ada.overflow_px() == 0


async def test_the_chart_and_the_list_tell_the_same(house: House, street: Street) -> None:
    await house.create("theodolite", start_price=100, duration_s=3600)
    prices = [100 + 2.5 * step for step in range(20)]
    for step, price in enumerate(prices):
        await house.bid("theodolite", f"user-{step % 2}", amount=price)
    ada = await street.person("user-0")
    await ada.open_lot("theodolite")
    chart = ada.page.get_by_role("img", name="The price so far")
    await expect(chart).to_have_accessible_name(
        re.compile(r"20 steps by 2 bidders, from \$100\.00 at .* to \$147\.50 at")
    )
    await expect(chart.locator(".chart-now-text")).to_have_text("$147.50")
    await expect(chart.locator(".chart-dot")).to_have_count(20)
    await chart.hover(position={"x": 5, "y": 60})
    await ada.sees("#chart-readout", "$100.00")
    visible = ada.at("#history-rows tr:visible")
    await expect(visible).to_have_count(12)
    await ada.page.get_by_role("button", name="Show all 20").press("Enter")
    await expect(visible).to_have_count(20)


async def test_a_lot_is_found_by_its_name_and_by_its_status(house: House, street: Street) -> None:
    await house.create("gramophone-1", name="Horn gramophone, oak", start_price=1)
    await house.create("gramophone-2", name="Table gramophone, walnut", start_price=1)
    await house.operate("gramophone-2", "pause", "its needle is looked at")

    async def listed() -> bool:
        """The catalogue has both; a page that is open does not ask it again."""
        return "gramophone-1" in await house.listed("open") and "gramophone-2" in await house.listed("paused")

    await eventually(listed, seconds=60)
    ada = await street.person("ada")
    await ada.open("/")
    shown = ada.at(".card:visible")
    await ada.page.get_by_role("searchbox", name="Find a lot").fill("GRAMOPHONE")
    await expect(shown).to_have_count(2)
    await expect(ada.at("#count")).to_have_text("2 lots")
    await ada.page.get_by_role("button", name="Paused").click()
    await expect(shown).to_have_text(re.compile("Table gramophone"))
    await ada.page.reload()
    await expect(shown).to_have_count(1)
    await ada.page.get_by_role("searchbox", name="Find a lot").fill("no such thing at all")
    await ada.sees("#none-such", "No lot matches")
    await expect(ada.at("#open-id")).to_be_hidden()
    await ada.page.get_by_role("searchbox", name="Find a lot").fill("walnut")
    await ada.page.keyboard.press("Enter")
    await ada.page.wait_for_url("**/items/gramophone-2")
    await ada.sees("#notice", "Its needle is looked at.")


async def test_what_ends_soonest_comes_first_and_what_has_ended_last(house: House, street: Street) -> None:
    await house.create("pendulum-1", currency="EUR", start_price=20, duration_s=7200)
    await house.create("pendulum-2", currency="JPY", start_price=5000, duration_s=3600)
    await house.create("pendulum-3", currency="EUR", start_price=90, duration_s=1800)
    await house.operate("pendulum-3", "cancel", "its owner keeps it")
    for item, amount in (("pendulum-1", 20), ("pendulum-2", 5000)):
        await house.bid(item, "bob", amount=amount)
    await eventually(lambda: has_listed(house, "cancelled", "pendulum-3"), seconds=60)
    ada = await street.person("ada")
    await ada.open("/?q=pendulum")
    names = ada.at(".card:visible h2")
    await expect(names).to_have_text(["Lot pendulum-2", "Lot pendulum-1", "Lot pendulum-3"])
    await ada.open("/?q=pendulum&sort=price")
    await expect(names).to_have_count(3)
    # The cheapest of the euros stands by the other euros, not behind the 5,000 yen.
    found = await names.all_inner_texts()
    assert abs(found.index("Lot pendulum-1") - found.index("Lot pendulum-3")) == 1, found


async def has_listed(house: House, status: str, item_id: str) -> bool:
    return item_id in await house.listed(status)


async def test_more_lots_are_read_on_from_where_the_button_was(house: House, street: Street) -> None:
    ada = await street.person("ada")
    coins = {f"coin-{n}" for n in range(26)}
    await asyncio.gather(*(house.create(coin, start_price=1, start_time=FAR, end_time=None) for coin in coins))

    async def all_listed() -> set[str]:
        """The lots of this test and of others."""
        listed = await house.listed("scheduled")
        return listed if coins <= listed else set()

    lots = len(await eventually(all_listed, seconds=60))
    await ada.open("/?status=scheduled")
    await expect(ada.at(".card")).to_have_count(24)
    await ada.page.get_by_role("button", name="Show more lots").press("Enter")
    await expect(ada.at(".card")).to_have_count(lots)
    await expect(ada.at(".card").nth(24).get_by_role("link")).to_be_focused()
