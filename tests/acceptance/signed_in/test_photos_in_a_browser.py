"""Photographs of lots in a real browser: uploaded by a seller, seen in the catalogue and in the room."""

from __future__ import annotations

import base64
import re
import secrets

from playwright.async_api import FilePayload, Route, expect

from tests.acceptance.browsing import PHONE, House, Person, Street, in_a_browser
from tests.acceptance.guarded import GuardedHouse
from tests.unit.api_gateway.images.pictures import SVG, png

pytestmark = in_a_browser

DRAW = """type => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [640, 480];
  const pen = canvas.getContext("2d");
  const sky = pen.createLinearGradient(0, 0, 640, 480);
  sky.addColorStop(0, "#264653");
  sky.addColorStop(0.6, "#e9c46a");
  sky.addColorStop(1, "#e76f51");
  pen.fillStyle = sky;
  pen.fillRect(0, 0, 640, 480);
  pen.fillStyle = "#f4f1de";
  pen.beginPath();
  pen.arc(420, 190, 70, 0, 7);
  pen.fill();
  return canvas.toDataURL(type).split(",")[1];
}"""


async def photograph(person: Person, media_type: str) -> FilePayload:
    """A real one, as a browser writes it."""
    content = base64.b64decode(await person.page.evaluate(DRAW, media_type))
    name = f"view.{media_type.rpartition('/')[2]}"
    return {"name": name, "mimeType": media_type, "buffer": content}


def drawn(name: str, colour: tuple[int, int, int]) -> FilePayload:
    content = png(300, 200, colour=(*colour[:2], secrets.randbelow(200)))
    return {"name": name, "mimeType": "image/png", "buffer": content}


async def is_shown(person: Person, selector: str) -> None:
    """The image at it has come and was decoded."""
    image = person.at(selector)
    await expect(image).to_be_visible()
    # A card far below is fetched when somebody comes near it.
    await image.scroll_into_view_if_needed()
    await expect(image).to_have_js_property("complete", True)
    assert await image.evaluate("image => image.naturalWidth") > 0


async def test_a_seller_s_photographs_are_seen_by_everybody(house: House, street: Street) -> None:
    seller = await street.person("harbour-house")
    page = seller.page
    await seller.open("/sell")
    await page.get_by_label("Name", exact=True).fill("Carriage clock, Paris")
    rows = page.get_by_role("list", name="Chosen photographs").get_by_role("listitem")
    chooser = page.get_by_label("Photographs (optional)")
    photographs = [await photograph(seller, f"image/{kind}") for kind in ("jpeg", "webp", "png")]
    await chooser.set_input_files(photographs)
    await expect(rows.get_by_text("Uploaded, 640 by 480 pixels")).to_have_count(3)
    await expect(seller.at("#photo-news")).to_have_text("view.png is uploaded.")

    # What is refused says why, and stands in the way until it is removed: by the keyboard alone.
    disguised: FilePayload = {"name": "logo.png", "mimeType": "image/png", "buffer": SVG}
    honest: FilePayload = {"name": "logo.svg", "mimeType": "image/svg+xml", "buffer": SVG}
    await chooser.set_input_files([disguised, honest])
    await expect(rows).to_have_count(5)
    for number in (3, 4):
        await expect(rows.nth(number)).to_contain_text("This is no JPEG, PNG or WebP image.")
    await seller.at("#submit").click()
    await seller.sees("#error-photos", "2 photographs were not uploaded")
    await expect(chooser).to_be_focused()
    await page.get_by_role("button", name="Remove logo.png").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Remove logo.svg")).to_be_focused()
    await page.keyboard.press("Space")
    await expect(page.get_by_role("button", name="Remove view.png")).to_be_focused()
    await expect(rows).to_have_count(3)
    await chooser.set_input_files([photographs[0]])
    await expect(rows.nth(3)).to_contain_text("is there already")
    await page.get_by_role("button", name="Remove view.jpeg").last.click()
    await page.get_by_role("button", name="Remove view.png").click()
    assert await seller.overflow_px() == 0
    await seller.at("#submit").click()
    await page.wait_for_url(re.compile(r"/items/carriage-clock-paris-[a-z0-9]{6}$"))
    await seller.is_live()
    item_id = page.url.rpartition("/")[2]
    urls = (await house.item(item_id))["image_urls"]
    assert [url.rpartition(".")[2] for url in urls] == ["jpg", "webp"]

    await is_shown(seller, "#plate img")
    await is_shown(seller, ".photo-frame img")
    await expect(seller.at(".photo-frame img")).to_have_attribute("alt", "Carriage clock, Paris, photograph 1 of 2")
    second = page.get_by_role("button", name="Show photograph 2 of 2")
    await second.focus()
    await page.keyboard.press("Enter")
    await expect(second).to_be_focused()
    await expect(second).to_have_attribute("aria-pressed", "true")
    await expect(seller.at(".photo-frame img")).to_have_attribute("src", urls[1])
    await is_shown(seller, ".photo-frame img")

    guest = await street.person("ann", size=PHONE)
    await guest.open(f"/?q={item_id}")
    await is_shown(guest, f'.card[data-id="{item_id}"] img')
    await expect(guest.at(f'.card[data-id="{item_id}"] img')).to_have_attribute("alt", "Carriage clock, Paris")
    await expect(guest.at(f'.card[data-id="{item_id}"] .rosette')).to_have_count(0)
    await guest.open_lot(item_id)
    await is_shown(guest, ".photo-frame img")
    assert await guest.overflow_px() == 0
    await house.operate(item_id, "cancel", "a test")
    await guest.reload_lot()
    await is_shown(guest, ".photo-frame img")


async def test_a_lot_without_photographs_has_its_engraving(house: House, street: Street) -> None:
    await house.create("engraved")
    ann = await street.person("ann")
    await ann.open_lot("engraved")
    await expect(ann.at("#plate .rosette")).to_be_visible()
    await expect(ann.at("#photos")).to_be_hidden()
    await ann.open("/?q=engraved")
    await expect(ann.at('.card[data-id="engraved"] .rosette')).to_be_attached()


async def test_a_photograph_that_does_not_load_leaves_no_hole(house: House, street: Street) -> None:
    ann = await street.person("ann")
    await ann.open("/sell")
    await ann.page.get_by_label("Name", exact=True).fill("Broken frame")
    await ann.page.get_by_label("Photographs (optional)").set_input_files(
        [drawn("one.png", (200, 90, 0)), drawn("two.png", (20, 90, 0))]
    )
    await expect(ann.at(".photo-state")).to_have_text(["Uploaded, 300 by 200 pixels"] * 2)
    await ann.at("#submit").click()
    await ann.page.wait_for_url(re.compile(r"/items/broken-frame-"))
    item_id = ann.page.url.rpartition("/")[2]
    first, second = (await house.item(item_id))["image_urls"]
    bob = await street.person("bob")
    await bob.page.route(f"**{first}", lambda route: route.abort())
    await bob.open_lot(item_id)
    await expect(bob.at("#plate .rosette")).to_be_visible()
    await expect(bob.at(".photo-frame img")).to_have_attribute("src", second)
    await expect(bob.at(".photo-choices")).to_be_hidden()
    await bob.page.route(f"**{second}", lambda route: route.abort())
    await bob.reload_lot()
    await expect(bob.at("#photos")).to_be_hidden()
    await bob.open(f"/?q={item_id}")
    await expect(bob.at(f'.card[data-id="{item_id}"] .rosette')).to_be_attached()


async def test_an_upload_that_breaks_off_can_be_tried_again(house: House, street: Street) -> None:
    ann = await street.person("ann")
    await ann.open("/sell")
    broken = True

    async def answer(route) -> None:  # type: ignore[no-untyped-def]
        await (route.abort() if broken else route.continue_())

    await ann.page.route("**/api/v1/images", answer)
    await ann.page.get_by_label("Photographs (optional)").set_input_files([drawn("one.png", (0, 90, 0))])
    await ann.sees(".photo-state", "The server could not be reached.")
    broken = False
    await ann.page.get_by_role("button", name="Try again to upload one.png").click()
    await ann.sees(".photo-state", "Uploaded, 300 by 200 pixels")


async def test_an_upload_in_nobodys_name_can_be_tried_again_after_the_sign_in(
    known: GuardedHouse, lane: Street
) -> None:
    sam = await lane.person("sam")
    await sam.open("/sell")
    await known.sign_in(sam, "seller")
    revoked = True

    async def answer(route: Route) -> None:
        if revoked:
            await route.fulfill(status=401, json={"code": "UNAUTHENTICATED", "detail": "the token was revoked"})
        else:
            await route.continue_()

    await sam.page.route("**/api/v1/images", answer)
    await sam.page.get_by_label("Photographs (optional)").set_input_files([drawn("one.png", (0, 90, 0))])
    await sam.sees(".photo-state", "The token was revoked.")
    await sam.sees(".account-note", "The house no longer accepts your sign-in.")
    await sam.sees("#barred", "Sign in as a seller to add a lot.")
    revoked = False
    await known.sign_in(sam, "seller")
    await sam.page.get_by_role("button", name="Try again to upload one.png").click()
    await sam.sees(".photo-state", "Uploaded, 300 by 200 pixels")
