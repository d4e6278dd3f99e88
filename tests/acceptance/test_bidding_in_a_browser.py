"""The bid form in a real browser: it tells what became of a bid, and prevents bids by mistake."""

from __future__ import annotations

import json
from typing import Any

from playwright.async_api import Route, expect
from redis.asyncio import Redis

from infrastructure.local.stack import Stack
from shared.feed_tokens import Identity
from shared.identity.tickets import give_ticket
from tests.acceptance.browsing import House, Person, Street, in_a_browser

pytestmark = in_a_browser

FAR_AHEAD_S = 4_000_000_000
ACCEPTED = "was accepted. You lead."


async def test_a_busy_answer_does_not_settle_what_is_not_known(house: House, street: Street) -> None:
    await house.create("spyglass", start_price=10, duration_s=3600)
    ada = await street.person("ada")
    tries: list[Any] = []

    async def unlucky(route: Route) -> None:
        tries.append(route.request.post_data_json)
        if len(tries) == 1:
            await route.fetch()
            await route.abort()
        elif len(tries) == 2:
            await route.fulfill(status=429, headers={"Retry-After": "0"}, json={"error": "too many requests"})
        else:
            await route.continue_()

    # Only the answer can tell: the feed, which would show the bid too, is down.
    await ada.page.route_web_socket("**/ws", lambda socket: socket.close())
    await ada.page.route("**/bid", unlucky)
    await ada.open("/items/spyglass")
    await ada.bids("10")
    await ada.sees("#verdict", ACCEPTED)
    assert len(tries) == 3
    assert len({json.dumps(bid) for bid in tries}) == 1, "the same bid each time"
    assert (await house.item("spyglass"))["bid_count"] == 1


async def test_to_ask_again_does_not_forget_that_the_bid_may_have_arrived(house: House, street: Street) -> None:
    await house.create("transit", start_price=10, duration_s=3600)
    # So that the half minute after which the page gives up need not be waited for.
    ahead = "window.aheadMs = 0; const now = performance.now.bind(performance); performance.now = () => now() + aheadMs"
    ada = await street.person("ada", script=ahead)
    tries: list[Any] = []
    answer = "lost"

    async def unlucky(route: Route) -> None:
        tries.append(route.request.post_data_json)
        if len(tries) == 1:
            await route.fetch()
        if answer == "lost":
            await route.abort()
        elif answer == "busy":
            await route.fulfill(status=503, json={"code": "OVERLOADED", "detail": "too busy"})
        else:
            await route.continue_()

    async def gives_up() -> None:
        await ada.sees("#verdict", "asking again")
        await ada.page.evaluate("aheadMs += 60_000")
        await ada.sees("#verdict", "Your bid of $10.00 was sent, and we still do not know whether it arrived.")

    async def asks_again() -> None:
        button = ada.page.get_by_role("button", name="Ask again")
        await expect(button).to_be_enabled()
        await button.click()

    # Only the answer can tell: the feed, which would show the bid too, is down.
    await ada.page.route_web_socket("**/ws", lambda socket: socket.close())
    await ada.page.route("**/bid", unlucky)
    await ada.open("/items/transit")
    await ada.bids("10")
    await gives_up()
    answer = "busy"
    await asks_again()
    await gives_up()
    kept = await ada.page.evaluate("sessionStorage.getItem('bidding.pending.transit')")
    assert json.loads(kept)["bid"] == tries[0], "the page can still ask after a reload"
    answer = "through"
    await asks_again()
    await ada.sees("#verdict", ACCEPTED)
    assert len({json.dumps(bid) for bid in tries}) == 1, "the same bid each time"
    assert (await house.item("transit"))["bid_count"] == 1


async def test_who_buys_now_offers_the_price_and_not_all_that_was_typed(house: House, street: Street) -> None:
    """Where a rival is faster, what was sent becomes an ordinary bid that everybody sees."""
    await house.create("octant", start_price=10, buy_now_price=900, duration_s=3600)
    ada = await street.person("ada")

    async def outrun(route: Route) -> None:
        await house.bid("octant", "bob", amount=50)
        await route.continue_()

    await ada.page.route("**/bid", outrun)
    await ada.open_lot("octant")
    await ada.bids("1500")
    await ada.sees("#verdict", "The lot would be yours for $900.00")
    yes = ada.page.get_by_role("button", name="Yes, buy for $900.00")
    await expect(yes).to_be_enabled()
    await yes.click()
    await ada.sees("#standing", "You lead")
    assert (await house.item("octant"))["current_bid"] == 900


async def test_a_bid_that_arrives_after_its_page_was_left_is_found(house: House, street: Street) -> None:
    await house.create("quadrant", start_price=10, duration_s=3600)
    ada = await street.person("ada")
    sent: list[dict[str, Any]] = []

    async def lose(route: Route) -> None:
        sent.append(route.request.post_data_json or {})
        await route.abort()

    async def look_up(route: Route) -> None:
        if len(sent) > 0 and not looked_up:
            looked_up.append(True)
            await route.fulfill(response=await route.fetch())
            # The bid is decided only now: it was in flight all the time.
            await house.bid("quadrant", **{**sent[0]})
        else:
            await route.continue_()

    looked_up: list[bool] = []
    await ada.page.route("**/bid", lose)
    await ada.page.route("**/bids/by-key/**", look_up)
    await ada.open_lot("quadrant")
    await ada.bids("10")
    await ada.sees("#verdict", "asking again")
    await ada.reload_lot()
    await ada.sees("#verdict", ACCEPTED)
    assert looked_up


async def test_a_second_press_is_no_second_bid(house: House, street: Street) -> None:
    await house.create("astrolabe", start_price=10, duration_s=3600)
    ada = await street.person("ada")
    await ada.open_lot("astrolabe")
    # The button is pressed once more at the moment when the bid is accepted.
    await ada.page.evaluate(
        """() => new MutationObserver((_changes, observer) => {
          if (!document.querySelector("#verdict.is-good")) return;
          observer.disconnect();
          document.querySelector("#bid-button").click();
        }).observe(document.querySelector("#verdict"), { attributes: true, childList: true })"""
    )
    await ada.bids("10")
    await ada.sees("#standing", "You lead")
    await expect(ada.at("#history-rows tr")).to_have_count(1)
    await ada.sees("#verdict", ACCEPTED)
    assert (await house.item("astrolabe"))["bid_count"] == 1


async def test_a_key_that_is_held_down_does_not_buy(house: House, street: Street) -> None:
    await house.create("chronometer", start_price=10, buy_now_price=900, duration_s=3600)
    ada = await street.person("ada")
    await ada.open_lot("chronometer")
    keys = ada.page.keyboard
    await ada.at("#buy-now").focus()
    await keys.down("Enter")
    await ada.sees("#verdict", "The lot would be yours for $900.00")
    for _ in range(3):
        await keys.down("Enter")
    await keys.up("Enter")
    await ada.sees("#verdict", "The lot would be yours for $900.00")
    # A second press by mistake hits "no", and the focus returns to where it was.
    await keys.press("Enter")
    await expect(ada.at("#verdict")).to_be_empty()
    await expect(ada.at("#buy-now")).to_be_focused()
    assert (await house.item("chronometer"))["status"] == "open"
    await keys.press("Enter")
    await keys.press("Shift+Tab")
    yes = ada.page.get_by_role("button", name="Yes, buy for $900.00")
    await expect(yes).to_be_focused()
    # What has just appeared does nothing yet.
    await expect(yes).to_be_enabled()
    await keys.press("Enter")
    await ada.sees("#notice", "The lot is yours, at $900.00.")


async def test_who_was_bidding_when_it_ended_is_taken_to_the_result(house: House, street: Street) -> None:
    await house.create("planisphere", start_price=10, duration_s=3600)
    ada = await street.person("ada")
    await ada.open_lot("planisphere")
    await ada.at("#amount").focus()
    await house.operate("planisphere", "cancel", "its owner keeps it")
    await ada.sees("#notice", "This lot was withdrawn from the sale.")
    await expect(ada.at("#notice")).to_be_focused()


async def test_a_quick_bid_takes_one_press_and_who_leads_is_offered_none(house: House, street: Street) -> None:
    await house.create("compass", start_price=100, duration_s=3600)
    ada, bob = await street.person("ada"), await street.person("bob")
    await ada.open_lot("compass")
    await bob.open_lot("compass")
    offers = bob.at("#suggestions button")
    assert await offers.all_inner_texts() == ["$100.00", "$102.50", "$105.00"]

    await ada.bids_quickly("$102.50")

    await ada.sees("#verdict", "Your bid of $102.50 was accepted. You lead.")
    await expect(ada.at("#quick")).to_be_hidden()
    # The focused button is gone; the keyboard must not start from the top of the page again.
    await expect(ada.at("#bid-button")).to_be_focused()
    await bob.sees("#price", "$102.50")
    await expect(offers).to_have_text(["$105.00", "$107.50", "$110.00"])
    await bob.bids_quickly("$110.00")
    await bob.sees("#standing", "You lead")
    assert (await house.item("compass"))["current_bid"] == 110


async def test_amounts_that_moved_under_the_finger_are_not_bid(house: House, street: Street) -> None:
    await house.create("sundial", start_price=100, duration_s=3600)
    ada = await street.person("ada")
    await ada.open_lot("sundial")
    # At the same moment the page gets the new price and the button is pressed.
    await ada.page.evaluate(
        """() => {
          const button = document.querySelector("#suggestions button");
          new MutationObserver((_changes, observer) => {
            observer.disconnect();
            button.click();
          }).observe(button, { childList: true, characterData: true, subtree: true });
        }"""
    )
    await house.bid("sundial", "bob", amount=100)
    await ada.sees("#verdict", "The price has just moved. Press again to bid $102.50.")
    assert (await house.item("sundial"))["highest_bidder_id"] == "bob"
    await ada.bids_quickly("$102.50")
    await ada.sees("#standing", "You lead")


async def test_a_bid_takes_no_mouse(house: House, street: Street) -> None:
    await house.create("abacus", start_price=100, duration_s=3600)
    ada = await street.person("ada")
    await ada.open_lot("abacus")
    keys = ada.page.keyboard
    await keys.press("Tab")
    await expect(ada.page.get_by_role("link", name="Skip to the price and your bid")).to_be_focused()
    await keys.press("Enter")
    await keys.press("Tab")
    await expect(ada.page.get_by_label("Bidding as")).to_be_focused()
    await keys.press("Tab")
    await expect(ada.page.get_by_role("radio", name="Bid", exact=True)).to_be_focused()
    await keys.press("Tab")
    await expect(ada.at("#amount")).to_be_focused()
    await keys.press("Control+A")
    await keys.type("120")
    await keys.press("Enter")
    await ada.sees("#verdict", "Your bid of $120.00 was accepted. You lead.")
    await house.bid("abacus", "bob", amount=150)
    await ada.sees("#standing", "You were outbid")
    await expect(ada.at("#suggestions button").first).to_be_enabled()
    await keys.press("Tab")
    await expect(ada.at("#suggestions button").first).to_be_focused()
    outline = await ada.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    await keys.press("Enter")
    await ada.sees("#verdict", "Your bid of $152.50 was accepted. You lead.")


async def show_maxima(platform: Stack, person: Person) -> None:
    """A house that knows who its bidders are, and lets them see their maxima."""
    identity = Identity(person.name, FAR_AHEAD_S, sees_maximum=True)

    async def give(route: Route) -> None:
        async with Redis.from_url(platform.urls.redis_url) as redis:
            ticket = await give_ticket(redis, identity)
        await route.fulfill(status=201, json={"ticket": ticket, "expires_in": 30})

    await person.page.route("**/api/v1/feed-ticket", give)


async def test_a_maximum_that_the_feed_tells_is_shown_at_once(platform: Stack, house: House, street: Street) -> None:
    await house.create("armillary", start_price=10, duration_s=3600)
    first = await house.bid("armillary", "ada", max_amount=50)
    ada = await street.person("ada")
    await show_maxima(platform, ada)
    sockets: list[Any] = []

    def join(socket: Any) -> None:
        socket.connect_to_server()
        sockets.append(socket)

    await ada.page.route_web_socket("**/ws", join)
    await ada.open_lot("armillary")
    await ada.sees("#maximum", "Your maximum: $50.00. Nobody else sees it.")

    # Raised elsewhere: a raise has no event, so only the private channel tells it.
    raised = await house.bid("armillary", "ada", max_amount=90)
    await ada.sees("#maximum", "Your maximum: $90.00.")
    await ada.page.get_by_role("radio", name="Leave a maximum").check()
    await ada.sees("#amount-hint", "More than $90.00, your maximum so far")
    # The count of the feed itself is there, and does not come after the one that is made up.
    await ada.sees("#viewers", "1")
    # A standing with an older version than the last is dropped, as the protocol says.
    item = await house.item("armillary")
    older = {"item_id": "armillary", "epoch": item["epoch"], "seq": item["seq"] - 1}
    sockets[-1].send(json.dumps({**older, "type": "standing", "standing": "none", "your_maximum": 60}))
    sockets[-1].send(json.dumps({"type": "viewers", "item_id": "armillary", "viewers": 77, "exact": True}))
    await ada.sees("#viewers", "77")
    await ada.sees("#maximum", "Your maximum: $90.00.")
    # A maximum goes with its bid, and the one before comes back.
    await house.operate("armillary", f"bids/{raised['bid_id']}/void", "not meant")
    await ada.sees("#struck", "The maximum that you had raised was voided by the auctioneer: Not meant.")
    await ada.sees("#maximum", "Your maximum: $50.00.")
    await house.operate("armillary", f"bids/{first['bid_id']}/void", "entered by mistake")
    await ada.sees("#leader", "Nobody yet")
    await ada.sees("#struck", "Your bid of $10.00 was voided by the auctioneer: Entered by mistake.")
    await expect(ada.at("#maximum")).to_be_hidden()
    await expect(ada.at("#struck p")).to_have_count(2)
    # A bidder who returns is told too, and nobody else is.
    await ada.open_lot("armillary")
    await ada.sees("#struck", "Your bid of $10.00 was voided by the auctioneer: Entered by mistake.")
    bob = await street.person("bob")
    await bob.open_lot("armillary")
    await bob.sees("#history-rows .is-struck", "$10.00")
    await expect(bob.at("#struck")).to_be_hidden()
