"""The operators' console in a real browser: how the house is, and what is done to a lot, with the keyboard alone."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Route, expect

from infrastructure.local.services import ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from tests.acceptance.browsing import PHONE, House, Street, in_a_browser
from tests.acceptance.guarded import GuardedHouse
from tests.acceptance.signed_in.test_rulings_in_a_browser import confirm, look_up, press
from tests.acceptance.test_room_in_a_browser import frozen
from tests.waiting import eventually

pytestmark = in_a_browser


async def test_an_operator_runs_a_lot_with_the_keyboard_alone(known: GuardedHouse, lane: Street) -> None:
    await known.create("gnomon", start_price=10, duration_s=3600)
    await known.bid("gnomon", "ann", max_amount=50)
    await known.bid("gnomon", "bob", amount=20)
    oda = await lane.person("oda")
    await oda.open("/ops")
    await oda.sees("#barred", "Sign in as an operator or an auditor.")
    await expect(oda.at("#console")).to_be_hidden()
    await known.sign_in(oda, "operator")
    keys = oda.page.keyboard
    await oda.at("#find").focus()
    await keys.type("gnomon")
    await keys.press("Enter")
    await oda.sees("#lot-name", "Lot gnomon")
    # With the names of those who bid.
    await oda.sees("#lot-leader", "ann")
    await oda.sees("#bids", "bob")

    async def do(button: str, yes: str, reason: str) -> None:
        await oda.page.get_by_role("button", name=button, exact=True).focus()
        await keys.press("Enter")
        await expect(oda.at("#reason")).to_be_focused()
        # Nothing is done without a reason.
        await keys.press("Tab")
        await expect(oda.at("#confirm-yes")).to_be_focused()
        await oda.sees("#confirm-yes", yes)
        await keys.press("Enter")
        await oda.sees("#reason-error", "Please give a reason")
        await expect(oda.at("#reason")).to_be_focused()
        await keys.type(reason)
        await keys.press("Tab")
        await keys.press("Enter")
        await expect(oda.at("#confirm")).to_be_hidden()

    await do("Pause", "Pause", "a question came up")
    await oda.sees("#lot-status", "Paused")
    await oda.sees("#audit", "a question came up")
    await do("Resume", "Resume", "it was answered")
    await oda.sees("#lot-status", "Open")
    # The end is moved by so many minutes, and those who watch the room are told why.
    watcher = await lane.person("wat")
    await watcher.open("/items/gnomon")
    await watcher.is_live()
    ends = await known.end_of("gnomon")
    await oda.page.get_by_role("button", name="Extend", exact=True).focus()
    await keys.press("Enter")
    await expect(oda.at("#amount")).to_be_focused()
    await keys.type("a while")
    await keys.press("Tab")
    await keys.type("the room has asked for time")
    await keys.press("Tab")
    await keys.press("Enter")
    await oda.sees("#amount-error", "Give whole minutes")
    await expect(oda.at("#amount")).to_be_focused()
    await keys.press("Control+a")
    await keys.type("45")
    await keys.press("Enter")
    await expect(oda.at("#confirm")).to_be_hidden()
    await oda.sees("#audit", "End moved to")
    await watcher.sees("#extended", "Extended by 45 minutes.")
    await watcher.sees("#extended", "The room has asked for time.")
    assert await known.end_of("gnomon") - ends == timedelta(minutes=45)
    # Live: what happens elsewhere is shown by itself.
    await known.bid("gnomon", "cyd-the-late", amount=80)
    await oda.sees("#lot-price", "$80.00")
    await oda.sees("#bids", "cyd-the-late")
    await oda.sees("#lot-leader", "cyd-the-late")
    await do("Void the bid of $80.00 by cyd-the-late", "Void the bid", "entered by mistake")
    await oda.sees("#lot-leader", "ann")
    await expect(oda.at("#bids .is-struck")).to_contain_text("cyd-the-late")
    await oda.sees("#audit", "entered by mistake")
    # Escape leaves everything as it is.
    await oda.page.get_by_role("button", name="Withdraw", exact=True).focus()
    await keys.press("Enter")
    await keys.press("Escape")
    await expect(oda.at("#confirm")).to_be_hidden()
    await expect(oda.at("#lot-status")).to_have_text("Open")
    await do("Withdraw", "Withdraw", "the lot is damaged")
    await oda.sees("#lot-status", "Withdrawn")
    await expect(oda.page.get_by_role("button", name="Pause", exact=True)).to_be_hidden()
    # All of it in the name of who was signed in.
    who = oda.at("#audit tr td:nth-child(2)")
    await expect(who).to_have_text(["oda"] * 5)


async def test_auditors_look_and_others_do_not(known: GuardedHouse, lane: Street) -> None:
    await known.create("heliostat", start_price=10, duration_s=3600)
    await known.bid("heliostat", "ann", amount=10)
    aud = await lane.person("aud")
    await aud.open("/")
    await known.sign_in(aud, "auditor")
    await aud.page.get_by_role("link", name="Operations").click()
    await aud.at("#find").fill("heliostat")
    await aud.page.get_by_role("button", name="Open", exact=True).click()
    await aud.sees("#lot-leader", "ann")
    await aud.sees("#parts", "api gateway")
    for name in ("Pause", "Withdraw", "Void"):
        await expect(aud.page.get_by_role("button", name=name)).to_have_count(0)
    bea = await lane.person("bea")
    await bea.open("/ops?lot=heliostat")
    await known.sign_in(bea, "bidder")
    await bea.sees("#barred", "Your account may not look at this.")
    await expect(bea.at("#console")).to_be_hidden()


async def test_an_operation_is_done_to_the_lot_that_the_question_names(house: House, street: Street) -> None:
    """Another lot, asked for a moment before, comes while the dialog is open."""
    await house.create("kelvin", name="Kelvin \u05d0", duration_s=3600)
    await house.create("lumen", duration_s=3600)
    ada = await street.person("ada")
    may_come = asyncio.Event()

    async def late(route: Route) -> None:
        await may_come.wait()
        await route.continue_()

    await ada.page.route("**/api/v1/items/lumen?*", late)
    await ada.open("/ops?lot=kelvin")
    await ada.sees("#lot-name", "Kelvin")
    await ada.at("#find").fill("lumen")
    await ada.at("#find").press("Enter")
    await ada.page.get_by_role("button", name="Withdraw", exact=True).click()
    await ada.sees("#confirm-words", "The lot is “\u2068Kelvin \u05d0\u2069” (kelvin). This is final")
    may_come.set()
    await ada.sees("#lot-name", "Lot lumen")
    await ada.at("#reason").fill("the lot is damaged")
    await ada.at("#confirm-yes").click()
    await expect(ada.at("#confirm")).to_be_hidden()
    assert (await house.item("lumen"))["status"] == "open"
    assert (await house.item("kelvin"))["status"] == "cancelled"


async def test_what_was_just_done_is_shown_while_the_archive_lags(
    platform: Stack, house: House, street: Street
) -> None:
    await house.create("udometer", start_price=10, duration_s=3600)
    ada = await street.person("ada")
    await ada.open("/ops?lot=udometer")
    await ada.sees("#lot-name", "Lot udometer")
    async with frozen(platform, ARCHIVAL_WORKER):
        await ada.page.get_by_role("button", name="Pause", exact=True).click()
        await ada.at("#reason").fill("a question came up")
        await ada.at("#confirm-yes").click()
        await ada.sees("#audit", "a question came up")
        await look_up(ada, "#lot-bidders", "bob")
        await press(ada, "#lot-bidders", "Block")
        await confirm(ada, "has not paid")
        await ada.sees("#audit tr:has-text('Blocked bob')", "has not paid")


async def test_an_answer_that_took_long_does_not_take_away_what_was_done_since(house: House, street: Street) -> None:
    await house.create("bathometer", start_price=10, duration_s=3600)
    ada = await street.person("ada")
    await ada.page.clock.install()
    asked = 0
    may_come = asyncio.Event()

    async def late(route: Route) -> None:
        """The first answer is of the moment at which it was asked for, and comes late; the second one is a failure."""
        nonlocal asked
        asked += 1
        if asked == 1:
            told = await route.fetch()
            await may_come.wait()
            await route.fulfill(response=told)
        elif asked == 2:
            await route.fulfill(status=503, content_type="application/problem+json", body='{"code":"UNAVAILABLE"}')
        else:
            await route.continue_()

    await ada.page.route("**/audit?*", late)
    await ada.open("/ops?lot=bathometer")
    await ada.page.get_by_role("button", name="Pause", exact=True).click()
    await ada.at("#reason").fill("a question came up")
    await ada.at("#confirm-yes").click()
    await ada.sees("#done", "Done")
    # Whatever is read anew before that answer comes, is read now.
    await ada.page.clock.run_for(3_000)
    may_come.set()
    await ada.sees("#audit", "a question came up")


async def test_the_lot_that_was_asked_for_last_is_shown(house: House, street: Street) -> None:
    for item in ("cyanometer", "dilatometer"):
        await house.create(item, start_price=10, duration_s=3600)
    ada = await street.person("ada")
    may_come = asyncio.Event()

    async def late(route: Route) -> None:
        await may_come.wait()
        await route.continue_()

    await ada.page.route("**/api/v1/items/cyanometer?*", late)
    await ada.open("/ops")
    for item in ("cyanometer", "dilatometer"):
        await ada.at("#find").fill(item)
        await ada.at("#find").press("Enter")
    await ada.sees("#lot-name", "Lot dilatometer")
    async with ada.page.expect_response("**/api/v1/items/cyanometer?*") as answer:
        may_come.set()
    await (await answer.value).finished()
    await house.bid("dilatometer", "bob", amount=10)
    await ada.sees("#lot-leader", "bob")
    await ada.sees("#lot-name", "Lot dilatometer")


async def test_the_lot_of_the_address_opens_with_the_sign_in_and_leaves_no_name_behind(
    guarded: Stack, known: GuardedHouse, lane: Street
) -> None:
    rival = "zoe-of-the-long-name"
    await known.create("manometer", start_price=10, duration_s=3600)
    await known.bid("manometer", rival, amount=10)
    connection = await asyncpg.connect(guarded.urls.postgres_url)
    try:
        await connection.execute(
            "INSERT INTO dead_letters (reason, detail, subject, stream_seq, data) "
            "VALUES ('poison', 'sent by zoe-of-the-long-name', 'auction.events.s00.x', 2, 'x')"
        )
        await connection.execute(
            "INSERT INTO acts (act, target, reason, actor) VALUES ('revoke_tokens', $1, 'a leak', 'olga')", rival
        )
        oda = await lane.person("oda")
        await oda.open("/ops?lot=manometer")
        await oda.sees("#barred", "Sign in as an operator or an auditor.")
        await known.sign_in(oda, "operator")
        await oda.sees("#lot-leader", rival)
        await oda.sees("#letters-rows", rival)
        await oda.sees("#acts-rows", f"Revoked all tokens of {rival}")
        await oda.sees("#acts-rows", "a leak")
        await oda.page.get_by_role("button", name="Void the bid").click()
        await oda.sees("#confirm-words", rival)
        # What was asked is asked no more when the sign-in ends.
        await known.end_session(oda)
        await expect(oda.at("#confirm")).to_be_hidden()
        await expect(oda.at("#console")).to_be_hidden()

        async def names_nobody() -> bool:
            return rival not in await oda.page.content()

        await eventually(names_nobody)
        await known.sign_in(oda, "auditor")
        await oda.sees("#lot-leader", rival)
        await expect(oda.page.get_by_role("button", name="Void the bid")).to_have_count(0)
        await oda.page.get_by_role("button", name="Sign out").click()
        await expect(oda.at("#console")).to_be_hidden()
        await eventually(names_nobody)
    finally:
        await connection.execute("DELETE FROM dead_letters")
        await connection.execute("DELETE FROM acts")
        await connection.close()


async def test_the_house_tells_which_part_is_not_well(platform: Stack, house: House, street: Street) -> None:
    """Where nobody signs in, the console is there for everybody, as all else is."""
    await house.create("isobar", start_price=10, duration_s=3600)
    ada = await street.person("ada")
    await ada.open("/ops?lot=isobar")
    await ada.sees("#lot-name", "Lot isobar")
    parts: Any = ada.at("#parts .part")
    await expect(parts).to_have_count(3)
    await expect(parts.filter(has_text="archival worker")).to_have_attribute("data-status", "ready")
    await house.bid("isobar", "ann", amount=10)
    await ada.sees("#hot-rows", "isobar")
    await ada.sees("#viewers", "1")
    await expect(ada.at("#rate")).not_to_have_text("—")

    connection = await asyncpg.connect(platform.urls.postgres_url)
    try:
        await connection.execute(
            "INSERT INTO dead_letters (reason, detail, subject, stream_seq, data) "
            "VALUES ('poison', 'not a message <b>at all</b>', 'auction.events.s00.x', 1, 'x')"
        )
        await ada.page.reload()
        await ada.sees("#letters-rows", "not a message <b>at all</b>")
        await ada.sees("#letters-count", "1 in all")
    finally:
        await connection.execute("DELETE FROM dead_letters")
        await connection.close()

    platform.kill(ARCHIVAL_WORKER)
    assert await platform.wait_ended(ARCHIVAL_WORKER)
    try:
        gone = parts.filter(has_text="archival worker")
        await expect(gone).to_have_attribute("data-status", "unreachable")
        await expect(gone).to_contain_text("Does not answer")
    finally:
        await platform.start_process(ARCHIVAL_WORKER)
    await expect(parts.filter(has_text="archival worker")).to_have_attribute("data-status", "ready")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_a_phone_nothing_scrolls_sideways(house: House, street: Street, scheme: Any) -> None:
    item = f"jig-{scheme}"
    await house.create(item, name="J" * 150, start_price=1_234_567_890.12, duration_s=3600)
    await house.bid(item, "b" * 64, amount=2_345_678_901.23)
    ada = await street.person("ada", size=PHONE)
    await ada.page.emulate_media(color_scheme=scheme)
    await ada.open(f"/ops?lot={item}")
    await ada.sees("#bids", "b" * 64)

    async def fits() -> bool:
        return await ada.overflow_px() == 0

    await eventually(fits)
