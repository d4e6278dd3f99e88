"""Signing in on the pages, in a real browser, where tokens say who calls."""

from __future__ import annotations

import asyncio
import json
import re

from playwright.async_api import Route, expect

from infrastructure.local.commands.identity.token import _link
from tests.acceptance.browsing import PHONE, Person, Street, in_a_browser
from tests.acceptance.guarded import GuardedHouse

pytestmark = in_a_browser


async def address(person: Person) -> str:
    text: str = await person.page.evaluate("location.href")
    return text


async def kept(person: Person) -> str:
    """Everything that the browser keeps of the page."""
    text: str = await person.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    return text


async def test_a_link_signs_in_once_and_leaves_no_trace(known: GuardedHouse, lane: Street) -> None:
    await known.create("astrolabe", start_price=10, duration_s=3600)
    ann = await lane.person("ann")
    link = _link(known.base, known.token("ann", "bidder")).removeprefix(known.base)
    code = link.partition("#")[2]
    requested: list[str] = []
    ann.page.on("request", lambda request: requested.append(request.url))
    await ann.open(link)
    await ann.sees("#title", "Is this you?")
    await ann.sees("#words", "as ann (bidder)")
    assert await address(ann) == f"{known.base}/sign-in"
    assert "bidding.session" not in await kept(ann), "nobody is signed in before they said so"
    await ann.page.get_by_role("button", name="Sign in as ann").click()
    await ann.sees(".account-name", "ann")
    await expect(ann.at("#grid .card").first).to_be_visible()
    assert [url for url in requested if code in url] == []

    # Signed in, also on the next page; the bid is hers, and she finds herself behind her alias.
    await ann.open_lot("astrolabe")
    await expect(ann.at("#paddle")).to_be_hidden()
    await ann.bids("10")
    await ann.sees("#verdict", "Your bid of $10.00 was accepted. You lead.")
    await ann.sees("#standing", "You lead")
    await ann.sees("#leader", "You")
    await ann.sees("#history-rows .is-own", "You")

    other = await lane.person("eve")
    await other.open(link)
    await other.sees("#title", "This link does not work")
    await other.sees("#words", "was used")
    assert "bidding.session" not in await kept(other)


async def test_bidders_are_told_how_they_stand_and_not_who_else_bids(known: GuardedHouse, lane: Street) -> None:
    rival = "bob-of-the-long-name"
    await known.create("barograph", start_price=10, duration_s=3600)
    ann = await lane.person("ann")
    await ann.open_lot("barograph")
    await ann.sees("#notice", "Sign in to bid on this lot.")
    await expect(ann.at("#bid-form")).to_be_hidden()
    await known.sign_in(ann, "bidder")
    await ann.leaves_maximum("40")
    await ann.sees("#standing", "You lead")
    await known.bid("barograph", rival, amount=20)
    await ann.sees("#price", "$20.50")
    await ann.sees("#standing", "You lead")
    # The house knows who she is, so it tells her maximum, on another machine too.
    elsewhere = await lane.person("ann")
    await elsewhere.open_lot("barograph")
    await known.sign_in(elsewhere, "bidder")
    await elsewhere.sees("#maximum", "Your maximum: $40.00. Nobody else sees it.")
    await elsewhere.sees("#leader", "You")
    await known.bid("barograph", rival, amount=60)
    for person in (ann, elsewhere):
        await person.sees("#standing", "You were outbid")
        await expect(person.at("#leader")).not_to_contain_text("You")
    # At once right after a reload, without a moment in which it would say something else.
    await elsewhere.reload_lot()
    await elsewhere.sees("#standing", "You were outbid")
    page = await ann.page.content()
    assert rival not in page
    assert [text for text in ann.heard + elsewhere.heard if rival in text] == []
    mine = [text for text in ann.heard if '"ann"' in text]
    assert {json.loads(text)["type"] for text in mine} == {"authenticated"}


async def test_what_is_typed_outlives_the_sign_in(known: GuardedHouse, lane: Street) -> None:
    await known.create("chronometer", start_price=10, duration_s=3600)
    ann = await lane.person("ann")
    await ann.open_lot("chronometer")
    await known.sign_in(ann, "bidder", ttl_s=6)
    await ann.page.get_by_label("Your bid", exact=True).fill("23.50")
    await ann.sees(".account-note", "Your sign-in has ended. Sign in again to go on; what you have typed is kept.")
    await ann.sees("#notice", "Sign in to bid on this lot.")
    assert "bidding.session" not in await kept(ann)
    await known.sign_in(ann, "bidder")
    await expect(ann.at(".account-note")).to_be_hidden()
    await expect(ann.page.get_by_label("Your bid", exact=True)).to_have_value("23.50")
    await ann.page.keyboard.press("Escape")
    await expect(ann.at("#bid-button")).not_to_have_attribute("aria-disabled", "true")
    await ann.at("#bid-button").click()
    # So much at once is asked about.
    await ann.sees("#verdict", re.compile(r"was accepted|\$23\.50"))
    await ann.page.get_by_role("button", name="Sign out").click()
    await ann.sees("#notice", "Sign in to bid on this lot.")
    await expect(ann.at("#standing")).to_be_hidden()
    left = await kept(ann)
    for key in ("session", "stakes", "aliases", "own_bids", "pending"):
        assert f"bidding.{key}" not in left, left


async def test_the_next_bidder_neither_reads_nor_answers_what_the_last_was_asked(
    known: GuardedHouse, lane: Street
) -> None:
    await known.create("goniometer", start_price=10, duration_s=3600)
    guest = await lane.person("ann")
    await guest.open_lot("goniometer")
    await known.sign_in(guest, "bidder")
    field = guest.page.get_by_label("Your bid", exact=True)
    await guest.bids("500")
    await guest.sees("#verdict", "$500.00 is 50 times the minimum")
    # It stays for who comes back.
    await known.end_session(guest)
    await known.sign_in(guest, "bidder")
    await guest.sees("#verdict", "Yes, bid $500.00")
    await known.end_session(guest)
    guest.name = "bob"
    await known.sign_in(guest, "bidder")
    await expect(guest.at("#verdict")).to_be_empty()
    await expect(field).to_have_value("10.00")
    await guest.bids("10")
    await guest.sees("#verdict", "Your bid of $10.00 was accepted. You lead.")
    await guest.page.get_by_role("button", name="Sign out").click()
    await expect(guest.at("#verdict")).to_be_empty()


async def test_what_becomes_of_a_bid_is_told_to_its_bidder_alone(known: GuardedHouse, lane: Street) -> None:
    await known.create("hodometer", start_price=10, duration_s=3600)
    # However long this test takes to sign somebody else in, the page does not ask again.
    patient = "AbortSignal.timeout = () => new AbortController().signal"
    guest = await lane.person("ann-of-the-long-name", script=patient)
    await guest.open_lot("hodometer")
    await known.sign_in(guest, "bidder")
    held: asyncio.Future[Route] = asyncio.get_running_loop().create_future()

    async def hold(route: Route) -> None:
        if held.done():
            await route.continue_()
        else:
            held.set_result(route)

    await guest.page.route("**/bid", hold)
    await guest.leaves_maximum("40")
    route = await held
    await guest.page.get_by_role("button", name="Sign out").click()
    guest.name = "bob"
    await known.sign_in(guest, "bidder")
    async with guest.page.expect_response("**/bid"):
        await route.continue_()
    await guest.bids("20")
    await guest.sees("#verdict", "Your bid of $20.00 was accepted, but another bidder's maximum is at least as high")
    assert "ann-of-the-long-name" not in await kept(guest)


async def test_a_token_that_is_none_or_not_believed_is_explained(known: GuardedHouse, lane: Street) -> None:
    ann = await lane.person("ann")
    await ann.open("/")
    await ann.page.get_by_role("button", name="Sign in").click()
    dialog = ann.page.get_by_role("dialog")
    for said, words in (
        ("", "This is not a token."),
        ("hello", "This is not a token."),
        (known.token("ann", "bidder")[:-4] + "AAAA", "not valid"),
        (known.token("ann", "bidder", ttl_s=-100), "expired"),
    ):
        await dialog.get_by_label("Token").fill(said)
        await dialog.get_by_role("button", name="Sign in").click()
        await expect(dialog.get_by_role("alert")).to_contain_text(words)
    # With the keyboard alone; a token that was not used does not stay on the screen.
    await ann.page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await ann.page.get_by_role("button", name="Sign in").press("Enter")
    await expect(dialog.get_by_label("Token")).to_have_value("")
    await expect(dialog.get_by_label("Token")).to_be_focused()


async def test_a_page_offers_what_the_roles_allow(known: GuardedHouse, lane: Street) -> None:
    await known.create("dioptra", start_price=10, duration_s=3600)
    sam = await lane.person("sam")
    await sam.open("/")
    await expect(sam.at("#grid .card").first).to_be_visible()
    await expect(sam.at("#add-lot")).to_be_hidden()
    await known.sign_in(sam, "seller")
    await expect(sam.at("#add-lot")).to_be_visible()
    await sam.open_lot("dioptra")
    await sam.sees("#notice", "Your account may not bid.")
    await sam.open("/sell")
    await expect(sam.at("#seller_id")).to_be_hidden()
    await sam.page.get_by_label("Name", exact=True).fill("Ephemeris")
    await sam.page.get_by_role("button", name="Add the lot").click()
    await sam.page.wait_for_url("**/items/*")
    await sam.sees("#term-seller", "sam")
    await sam.sees("#notice", "This is your own lot")

    ann = await lane.person("ann")
    await ann.open("/sell")
    await ann.page.get_by_label("Name", exact=True).fill("Not mine to sell")
    await ann.sees("#barred", "Sign in as a seller to add a lot.")
    await known.sign_in(ann, "bidder")
    await ann.sees("#barred", "Your account may not sell.")
    await expect(ann.page.get_by_label("Name", exact=True)).to_have_value("Not mine to sell")
    await ann.page.get_by_label("Name", exact=True).press("Enter")
    assert (await address(ann)).endswith("/sell")


_OVERLAPS = """() => {
  const boxes = [...document.querySelectorAll("header.bar > *, #account > *")]
    .filter((node) => node.id !== "account" && node.checkVisibility())
    .map((node) => node.getBoundingClientRect());
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  return boxes.some((one, index) => boxes.slice(index + 1).some((other) => meet(one, other)));
}"""


async def test_on_a_small_phone_there_is_room_for_who_one_is(known: GuardedHouse, lane: Street) -> None:
    await known.create("fathometer", start_price=10, duration_s=3600)
    long = await lane.person("m" * 64, size=PHONE)
    for path in ("/", "/items/fathometer", "/sell", "/selling", "/ops", "/sign-in"):
        await long.open(path)
        await expect(long.page.get_by_role("button", name="Sign in", exact=True).first).to_be_visible()
        assert not await long.page.evaluate(_OVERLAPS), path
        assert await long.overflow_px() == 0, path
    await known.sign_in(long, "bidder", "seller", "operator")
    for path in ("/", "/items/fathometer", "/sell", "/selling", "/ops?lot=fathometer"):
        await long.open(path)
        await expect(long.page.get_by_role("button", name="Sign out")).to_be_visible()
        assert not await long.page.evaluate(_OVERLAPS), path
        assert await long.overflow_px() == 0, path


async def test_where_nobody_is_asked_nobody_signs_in(street: Street) -> None:
    ada = await street.person("ada")
    await ada.open("/sign-in")
    await ada.sees("#title", "Nobody signs in here")
    await ada.open("/")
    await expect(ada.page.get_by_role("button", name="Sign in")).to_have_count(0)
