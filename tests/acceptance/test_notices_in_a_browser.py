"""What pages say beside the price, in a real browser: notices of the page and of the browser, and what people wrote."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Route, expect

from tests.acceptance.browsing import PHONE, House, Person, Street, in_a_browser
from tests.acceptance.guarded import GuardedHouse
from tests.acceptance.signed_in.test_signing_in_a_browser import kept
from tests.waiting import eventually

pytestmark = in_a_browser

# Stands in for the browser's own notices, which headless browsers do not show, and for a tab that is hidden or not.
NOTICES = """
  window.told = [];
  window.asked = 0;
  window.Notification = class {
    static get permission() { return localStorage.getItem("permission") ?? "default"; }
    static async requestPermission() {
      window.asked += 1;
      localStorage.setItem("permission", window.answers ?? "granted");
      return this.permission;
    }
    constructor(title, { body, tag }) {
      this.title = title;
      window.told.push({ title, body, tag, isOpen: true, notice: this });
    }
    close() { window.told.find(({ notice }) => notice === this).isOpen = false; }
  };
  let isHidden = false;
  Object.defineProperty(document, "hidden", { get: () => isHidden });
  window.hide = (hidden) => {
    isHidden = hidden;
    document.dispatchEvent(new Event("visibilitychange"));
  };
"""


ELSEWHERE = "/sell"
"""A page that follows no lot."""


async def told(person: Person) -> list[list[str]]:
    """Title and text of each notice of the browser, so far."""
    found: list[list[str]] = await person.page.evaluate("told.map(({ title, body }) => [title, body])")
    return found


async def is_told(person: Person, *notices: list[str]) -> None:
    async def so() -> bool:
        return await told(person) == list(notices)

    await eventually(so, f"{notices}")


async def meets(person: Person, item_id: str, heard: int) -> None:
    """The page has heard of the lot, in frames after the first ``heard`` ones."""

    def so() -> bool:
        frames = (json.loads(text) for text in person.heard[heard:])
        return item_id in {frame.get("item_id") for frame in frames if frame["type"] == "snapshot"}

    await eventually(so, f"a snapshot of {item_id}")


async def opens_beside(person: Person, item_id: str, *others: str) -> None:
    """Opens the page of a lot, and returns once that page knows how the other lots are."""
    heard = len(person.heard)
    await person.open_lot(item_id)
    for other in others:
        await meets(person, other, heard)


async def says_nothing_of(person: Person, house: House, other: str, *, here: str, amount: float) -> None:
    """The page of the lot ``here`` has heard how the other one is, and tells nothing about it."""
    asked: list[str] = []
    person.page.on("request", lambda request: asked.append(urlsplit(request.url).path))
    heard = len(person.heard)
    await person.reload_lot()
    await meets(person, other, heard)
    # What comes later over the same connection is shown: so is what the page has to say of what came before.
    await house.bid(here, "cyd", amount=amount)
    await person.sees("#price", f"${amount:.2f}")
    await expect(person.at("#outbid .outbid")).to_have_count(0)
    assert f"/api/v1/items/{other}" not in asked, "it is asked for only to be told about"


async def test_a_lead_that_was_lost_between_two_pages_is_told_once(house: House, street: Street) -> None:
    await house.create_all("viol", "rebec", start_price=10, duration_s=3600)
    ada = await street.person("ada")
    await ada.takes_the_lead("viol", "10")
    second = await street.beside(ada)
    await opens_beside(second, "rebec", "viol")
    await ada.open(ELSEWHERE)
    await house.bid("viol", "bob", amount=20)
    # The tab that is open tells it, and no page that is opened after that.
    await second.sees("#outbid", "You were outbid on Lot viol, now at $20.00.")
    await opens_beside(ada, "rebec", "viol")
    await says_nothing_of(ada, house, "viol", here="rebec", amount=11)
    # Nobody was there to be told: the next page does it, and no page after that.
    await house.bid("viol", "ada", amount=30)
    await ada.open_lot("viol")
    await ada.sees("#standing", "You lead")
    await second.page.close()
    await ada.open(ELSEWHERE)
    await house.bid("viol", "bob", amount=40)
    await opens_beside(ada, "rebec", "viol")
    await ada.sees("#outbid", "You were outbid on Lot viol, now at $40.00.")
    await says_nothing_of(ada, house, "viol", here="rebec", amount=12)
    # On the page of the lot itself the page says it, and the next one does not.
    await house.bid("viol", "ada", amount=50)
    await ada.open_lot("viol")
    await ada.sees("#standing", "You lead")
    await house.bid("viol", "bob", amount=60)
    await ada.sees("#standing", "You were outbid")
    await opens_beside(ada, "rebec", "viol")
    await says_nothing_of(ada, house, "viol", here="rebec", amount=13)
    # What is over is told by the lists.
    await house.bid("viol", "ada", amount=70)
    await ada.open_lot("viol")
    await ada.sees("#standing", "You lead")
    await ada.open(ELSEWHERE)
    await house.bid("viol", "bob", amount=80)
    await house.operate("viol", "cancel", "it broke")
    await opens_beside(ada, "rebec", "viol")
    await says_nothing_of(ada, house, "viol", here="rebec", amount=14)


async def test_a_lead_that_only_the_answer_to_the_bid_has_told_is_remembered(house: House, street: Street) -> None:
    await house.create_all("shawm", "crumhorn", start_price=10, duration_s=3600)
    ada = await street.person("ada")
    await ada.page.route_web_socket(re.compile("/ws"), lambda _socket: None)  # silent
    await ada.open("/items/shawm")
    await expect(ada.at("#bid-button")).not_to_have_attribute("aria-disabled", "true")
    await ada.page.route("**/api/v1/items/shawm?*", lambda route: route.abort())
    await ada.bids("10")
    await ada.sees("#verdict", "Your bid of $10.00 was accepted. You lead.")
    await house.bid("shawm", "bob", amount=20)
    beside = await street.beside(ada)
    await ada.page.close()
    await opens_beside(beside, "crumhorn", "shawm")
    await beside.sees("#outbid", "You were outbid on Lot shawm, now at $20.00.")


async def test_a_notice_whose_lot_cannot_be_read_is_told_by_the_next_page(house: House, street: Street) -> None:
    await house.create_all("cittern", "gittern", start_price=10, duration_s=3600)
    ada = await street.person("ada")
    await ada.takes_the_lead("cittern", "10")
    await opens_beside(ada, "gittern", "cittern")
    refused = asyncio.Event()

    async def refuse(route: Route) -> None:
        refused.set()
        await route.fulfill(status=503, content_type="application/problem+json", body='{"code":"UNAVAILABLE"}')

    await ada.page.route("**/api/v1/items/cittern?*", refuse)
    await house.bid("cittern", "bob", amount=20)
    await refused.wait()
    await ada.open(ELSEWHERE)
    await ada.page.unroute("**/api/v1/items/cittern?*")
    await opens_beside(ada, "gittern", "cittern")
    await ada.sees("#outbid", "You were outbid on Lot cittern, now at $20.00.")


async def test_a_lead_of_another_device_that_was_seen_here_is_told_here_when_it_is_lost(
    known: GuardedHouse, lane: Street
) -> None:
    for item in ("bombard", "racket"):
        await known.create(item, start_price=10, duration_s=3600)
    await known.bid("bombard", "wilma", amount=10)
    here = await lane.person("wilma")
    await here.open("/")
    await known.sign_in(here, "bidder")

    async def leads() -> bool:
        await here.open("/?status=mine")
        await expect(here.at("#count").or_(here.at("#none-such-text")).first).not_to_be_empty()
        return await here.at(".card:visible").count() == 1

    await eventually(leads, "the bid of another device", seconds=60)
    await here.sees(".card .tag-good", "You lead")
    await here.open(ELSEWHERE)
    await known.bid("bombard", "rival", amount=20)
    await opens_beside(here, "racket", "bombard")
    await here.sees("#outbid", "You were outbid on Lot bombard, now at $20.00.")
    await known.bid("bombard", "wilma", amount=30)
    await expect(here.at("#outbid .outbid")).to_have_count(0)
    await here.page.get_by_role("button", name="Sign out").click()
    await expect(here.at(".account-name")).to_be_hidden()
    left = (await kept(here)).replace('"bidding.user_id":"wilma"', "")
    assert [word for word in ("wilma", "bombard", "bidding.") if word in left] == [], left


async def test_the_browser_tells_who_has_asked_for_it(house: House, street: Street) -> None:
    await house.create_all("clarinet", "bassoon", "oboe", start_price=10, duration_s=3600)
    ada = await street.person("ada", script=NOTICES)
    await ada.takes_the_lead("bassoon", "10")
    await ada.open_lot("oboe")
    await ada.page.get_by_role("button", name="Watch this lot").click()
    heard = len(ada.heard)
    await ada.takes_the_lead("clarinet", "10")
    assert await ada.page.evaluate("asked") == 0, "nobody is asked unasked"

    button = ada.page.get_by_role("button", name="Notify me when outbid")
    await expect(button).to_have_attribute("aria-pressed", "false")
    await button.click()
    await expect(button).to_have_attribute("aria-pressed", "true")
    await ada.sees("#notify-note", "your browser tells you when you are outbid")
    for other in ("bassoon", "oboe"):
        await meets(ada, other, heard)

    # While the page is in sight, the page tells it.
    await house.bid("bassoon", "bob", amount=20)
    await ada.sees("#outbid", "You were outbid on Lot bassoon, now at $20.00.")
    assert await told(ada) == []

    await ada.page.evaluate("hide(true)")
    await house.bid("clarinet", "bob", amount=30)
    await is_told(ada, ["You were outbid on Lot clarinet", "The price is now $30.00."])
    # The first bid on a watched lot gives a notice, and no further one does until the page was in sight again.
    await house.bid("oboe", "bob", amount=40)
    await house.bid("oboe", "bob", amount=50)
    await eventually(lambda: 50 in [frame["amount"] for frame in ada.frames("bid") if frame["item_id"] == "oboe"])

    async def is_said_once() -> bool:
        return [title for title, _ in await told(ada)][1:] == ["A bid on Lot oboe"]

    await eventually(is_said_once, "one bid on what is watched")
    await ada.page.evaluate("hide(false)")
    assert await ada.page.evaluate("told.filter(({ isOpen }) => isOpen).length") == 0

    # It is remembered, and ends when the button is pressed again.
    await ada.open("/?status=watched")
    await expect(button).to_have_attribute("aria-pressed", "true")
    await button.click()
    await expect(button).to_have_attribute("aria-pressed", "false")
    await ada.open_lot("clarinet")
    await expect(button).to_have_attribute("aria-pressed", "false")
    assert await ada.page.evaluate("asked") == 0


async def test_who_says_no_is_told_nothing(house: House, street: Street) -> None:
    await house.create("cornet", start_price=10, duration_s=3600)
    ada = await street.person("ada", script=f"{NOTICES} window.answers = 'denied';")
    await ada.takes_the_lead("cornet", "10")
    button = ada.page.get_by_role("button", name="Notify me when outbid")
    await button.click()
    await ada.sees("#notify-note", "Your browser blocks notices from this site.")
    await expect(button).to_have_attribute("aria-pressed", "false")
    await ada.page.evaluate("hide(true)")
    await house.bid("cornet", "bob", amount=30)
    await ada.sees("#standing", "You were outbid")
    assert await told(ada) == []


async def test_a_room_has_one_connection(house: House, street: Street) -> None:
    await house.create_all("sousaphone", "euphonium", start_price=10, duration_s=3600)
    ada = await street.person("ada")
    await ada.takes_the_lead("sousaphone", "10")
    sockets: list[Any] = []
    ada.page.on("websocket", lambda socket: sockets.append(socket.url))
    await opens_beside(ada, "euphonium", "sousaphone")
    await house.bid("sousaphone", "bob", amount=20)
    await ada.sees("#outbid", "You were outbid on Lot sousaphone, now at $20.00.")
    # What is said of the other lot is not said of this one.
    await ada.sees("#price", "$10.00")
    await expect(ada.at("#standing")).to_be_hidden()
    assert len(sockets) == 1, sockets


# What lies under the middle of an element: the element itself, or what covers it.
_IS_FREE = """(id) => {
  const element = document.getElementById(id);
  const { left, top, width, height } = element.getBoundingClientRect();
  const found = document.elementFromPoint(left + width / 2, top + height / 2);
  return element === found || element.contains(found);
}"""


@pytest.mark.parametrize("size", [PHONE, (320, 640), (740, 360), (1280, 900)])
async def test_a_notice_covers_neither_the_price_nor_the_button(
    house: House, street: Street, size: tuple[int, int]
) -> None:
    here, there = f"tabla-{size[0]}", f"sitar-{size[0]}"
    for item in (here, there):
        await house.create(item, start_price=10, duration_s=3600, description="A long story. " * 40)
    ada = await street.person("ada", size=size)
    await ada.takes_the_lead(there, "10")
    await opens_beside(ada, here, there)
    await house.bid(there, "bob", amount=20)
    await ada.sees("#outbid", f"You were outbid on Lot {there}")
    for place in (0, 120, 300):
        await ada.scrolls_to(place)
        for element in ("price", "bid-button"):
            in_sight = await ada.has_in_sight(element)
            assert not in_sight or await ada.page.evaluate(_IS_FREE, element), (element, place)


BACKWARDS = "Mirror \u202egnihton fo"
# Whether the words behind the link run from left to right.
_RUNS_RIGHT = """() => {
  const words = document.querySelector(".outbid p").lastChild;
  const place = (at) => {
    const range = document.createRange();
    range.setStart(words, at);
    range.setEnd(words, at + 1);
    return range.getBoundingClientRect().left;
  };
  return place(0) < place(words.length - 2);
}"""


async def test_a_name_turns_no_words_around(house: House, street: Street) -> None:
    for item in ("mirror", "lamp"):
        await house.create(item, name=f"{BACKWARDS} {item}", start_price=10, duration_s=3600)
    ada = await street.person("ada", size=(1280, 900))
    await ada.open_lot("mirror")
    await expect(ada.page).to_have_title(re.compile(r"^\$10\.00 · \u2068Mirror gnihton fo mirror\u2069$"))
    await ada.bids("10")
    await ada.sees("#standing", "You lead")
    await opens_beside(ada, "lamp", "mirror")
    await house.bid("mirror", "bob", amount=20)
    await ada.sees("#outbid", "now at $20.00")
    assert await ada.page.evaluate(_RUNS_RIGHT)
    await house.operate("lamp", "cancel", "it \u202ebroke")
    await ada.sees("#notice", "This lot was withdrawn from the sale. \u2068It broke.\u2069")
    for selector in ("#name", "#description", ".outbid a"):
        assert await ada.at(selector).get_attribute("dir") == "auto", selector
    await ada.open("/?q=%D7%90%E2%80%AE")
    await ada.sees("#none-such", "No lot matches “\u2068\u05d0\u2069”.")


async def test_a_catalogue_that_cannot_be_read_is_asked_seldom_and_comes_back(house: House, street: Street) -> None:
    await house.create("kaleidoscope", start_price=10)
    await eventually(lambda: _lists(house, "kaleidoscope"), seconds=60)
    ada = await street.person("ada")
    asked: list[str] = []

    async def refuse(route: Any) -> None:
        asked.append(route.request.url)
        await route.fulfill(status=503, content_type="application/problem+json", body='{"code":"UNAVAILABLE"}')

    await ada.page.route("**/api/v1/items?*", refuse)
    await ada.page.clock.install()
    await ada.open("/?q=kaleidoscope")
    await ada.sees("#trouble", "The catalogue could not be read.")
    await ada.page.clock.pause_at(await ada.page.evaluate("Date.now() + 1000"))
    asked.clear()
    for letter in "kaleidoscope":
        await ada.at("#find").press_sequentially(letter)
        await ada.page.clock.run_for(200)
    await ada.at("#find").fill("kaleidoscope")
    await ada.page.clock.run_for(8_000)
    assert 1 <= len(asked) <= 6, asked
    await ada.page.unroute("**/api/v1/items?*")
    await ada.page.clock.resume()
    await ada.page.clock.fast_forward(60_000)
    await expect(ada.at(".card:visible")).to_have_count(1)
    await expect(ada.at("#trouble")).to_be_hidden()


async def _lists(house: House, item_id: str) -> bool:
    return item_id in await house.listed("open")
