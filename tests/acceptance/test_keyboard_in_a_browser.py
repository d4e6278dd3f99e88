"""The pages by the keyboard alone: from the catalogue to a lot that is won, with Tab and Enter."""

from __future__ import annotations

from playwright.async_api import expect

from tests.acceptance.browsing import House, Person, Street, in_a_browser
from tests.waiting import eventually

pytestmark = in_a_browser

PRESSES_MAX = 120

# The element with the focus, and whether people see the focus: it is in the window, uncovered, and has a ring.
_FOCUS = """() => {
  const focused = document.activeElement;
  const { left, top, width, height } = focused.getBoundingClientRect();
  const [x, y] = [left + width / 2, top + height / 2];
  const found = document.elementFromPoint(x, y);
  // Of an invisible radio button the label shows the ring; of a field with a symbol, and of a card, the box around it.
  const shown = [focused, focused.nextElementSibling, focused.parentElement, focused.closest(".card")];
  const style = shown.filter((node) => node !== null).map((node) => getComputedStyle(node));
  return {
    id: focused.id,
    name: (focused.ariaLabel ?? focused.textContent).trim(),
    isInSight: x >= 0 && y >= 0 && x <= innerWidth && y <= innerHeight,
    isFree: found !== null && (focused === found || focused.contains(found) || found.contains(focused)),
    hasRing: style.some(({ outlineStyle, outlineWidth }) => outlineStyle !== "none" && outlineWidth !== "0px"),
  };
}"""


async def tabs_to(person: Person, *, element: str = "", name: str = "") -> None:
    """Presses Tab until the element of this id, or of this name, has the focus; looks at each on the way."""
    for _ in range(PRESSES_MAX):
        await person.page.keyboard.press("Tab")
        focus = await person.page.evaluate(_FOCUS)
        if focus["id"] == "" and focus["name"] == "":
            continue  # the browser's own controls, between the end of the page and its beginning
        assert focus["isInSight"], focus
        assert focus["isFree"], focus
        assert focus["hasRing"], focus
        if (element and focus["id"] == element) or (name and focus["name"] == name):
            return
    raise AssertionError(f"no Tab reaches {element or name}")


async def enter(person: Person) -> None:
    await person.page.keyboard.press("Enter")


async def test_from_the_catalogue_to_a_won_lot(house: House, street: Street) -> None:
    await house.create("typewriter", start_price=10, reserve_price=80, buy_now_price=90, duration_s=900)
    await eventually(lambda: _lists(house, "typewriter"), seconds=60)
    ada = await street.person("ada")
    # The lots of other tests may close sooner, and would stand before it.
    await ada.open("/?q=typewriter")
    await expect(ada.at(".card:visible")).to_have_count(1)
    await tabs_to(ada, name="Lot typewriter")
    await enter(ada)
    await ada.page.wait_for_url("**/items/typewriter")
    await ada.is_live()

    # The first Tab offers the way past the bar.
    await ada.page.keyboard.press("Tab")
    await expect(ada.page.locator(":focus")).to_have_text("Skip to the price and your bid")
    await enter(ada)
    await tabs_to(ada, element="bid-button")
    await enter(ada)
    await ada.sees("#verdict", "Your bid of $10.00 was accepted. You lead.")
    # The focus stays where it was, so a bidder goes on from there.
    await expect(ada.at("#bid-button")).to_be_focused()

    # Below the reserve buy-now is still offered.
    await tabs_to(ada, element="buy-now")
    await enter(ada)
    await ada.sees("#verdict", "The lot would be yours for $90.00, and the auction over.")
    # The question puts the focus on "no"; "yes" is the one before. A press at once would count for nothing.
    await expect(ada.page.get_by_role("button", name="Not now")).to_be_focused()
    yes = ada.page.get_by_role("button", name="Yes, buy for $90.00")
    await expect(yes).to_be_enabled()
    await ada.page.keyboard.press("Shift+Tab")
    await expect(yes).to_be_focused()
    await enter(ada)
    await ada.sees("#standing", "You won this lot")
    await ada.sees("#notice", "The lot is yours, at $90.00.")
    # What had the focus is gone: it is on what stands in its place.
    await expect(ada.at("#notice")).to_be_focused()


async def test_the_close_is_heard_where_the_focus_is(house: House, street: Street) -> None:
    await house.create("slide-rule", start_price=10, duration_s=20)
    ada = await street.person("ada")
    await ada.open_lot("slide-rule")
    await tabs_to(ada, element="bid-button")
    await enter(ada)
    await ada.sees("#standing", "You lead")
    await ada.sees("#standing", "You won this lot")
    await ada.sees("#alert", "You won this lot, at $10.00.")
    await expect(ada.at("#notice")).to_be_focused()


async def _lists(house: House, item_id: str) -> bool:
    return item_id in await house.listed("open")
