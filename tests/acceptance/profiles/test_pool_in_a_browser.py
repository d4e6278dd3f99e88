"""A profile that was given back has nothing of who had it before."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser

from infrastructure.local.stack import Stack
from tests.acceptance.browsing import PHONE, Person, Street, in_a_browser
from tests.acceptance.profiles.pool import Profiles

pytestmark = in_a_browser

LEAVE = """async () => {
  localStorage.setItem("left", "1");
  sessionStorage.setItem("left", "1");
  document.cookie = "left=1; path=/; max-age=3600";
  await (await caches.open("left")).put("/left", new Response("1"));
  await new Promise((resolve) => {
    indexedDB.open("left", 1).onsuccess = (event) => { event.target.result.close(); resolve(); };
  });
  addEventListener("pagehide", () => localStorage.setItem("left", "as it went"));
  window.left = 1;
}"""
FOUND = """async () => [
  ...Object.keys(localStorage),
  ...Object.keys(sessionStorage),
  ...document.cookie.split("; ").filter(Boolean),
  ...await caches.keys(),
  ...(await indexedDB.databases()).map(({ name }) => name),
  ...("left" in window ? ["window"] : []),
]"""
PLACE = "/favicon.svg"


@pytest_asyncio.fixture(loop_scope="session")
async def profiles(platform: Stack, browser: Browser) -> AsyncIterator[Profiles]:
    """Of no other test, and closed with this one."""
    before = set(browser.contexts)
    yield Profiles(browser, platform.urls.gateway_url)
    for context in set(browser.contexts) - before:
        await context.close()


async def ada_of(street: Street) -> Person:
    ada = await street.person("ada")
    await ada.open(PLACE)
    return ada


async def test_nothing_that_was_stored_stays(profiles: Profiles) -> None:
    first, second = Street(profiles), Street(profiles)
    ada = await first.person("ada", size=PHONE, script="window.script = 1;")
    await ada.page.route("**/health", lambda route: route.fulfill(body="routed"))
    await ada.open(PLACE)
    await ada.page.evaluate(LEAVE)
    assert await ada.page.evaluate(FOUND) == ["bidding.user_id", "left", "left", "left=1", "left", "left", "window"]
    beside = await first.beside(ada)
    await beside.open(PLACE)
    assert await beside.page.evaluate(FOUND) == ["bidding.user_id", "left", "left=1", "left", "left"]
    await first.close()

    bob = await second.person("bob")
    assert bob.page.context is ada.page.context
    await bob.open("/health")
    assert await bob.page.evaluate("localStorage.getItem('bidding.user_id')") == "bob"
    assert await bob.page.evaluate(FOUND) == ["bidding.user_id"]
    assert await bob.page.evaluate("[typeof script, innerWidth]") == ["undefined", 1280]
    await bob.sees("body", "healthy")
    await second.close()


async def test_people_of_one_test_share_nothing(profiles: Profiles) -> None:
    street = Street(profiles)
    ada, bob = await ada_of(street), await street.person("bob")
    await ada.page.evaluate(LEAVE)
    await bob.open(PLACE)
    assert await bob.page.evaluate(FOUND) == ["bidding.user_id"]
    await street.close()


async def test_the_next_is_online(profiles: Profiles) -> None:
    first, second = Street(profiles), Street(profiles)
    ada = await ada_of(first)
    await ada.goes_offline(True)
    assert not await ada.page.evaluate("navigator.onLine")
    await first.close()
    bob = await ada_of(second)
    assert await bob.page.evaluate("navigator.onLine")
    assert bob.page.context is ada.page.context
    await second.close()


async def test_no_clock_of_a_test_is_given_to_the_next(profiles: Profiles) -> None:
    first, second = Street(profiles), Street(profiles)
    ada = await ada_of(first)
    await ada.page.clock.install(time=0)
    assert await ada.page.evaluate("Date.now() < 1e12")
    await first.close()
    bob = await ada_of(second)
    assert await bob.page.evaluate("Date.now() > 1e12")
    assert ada.page.context not in bob.page.context.browser.contexts  # type: ignore[union-attr]
    await second.close()


async def test_a_page_that_opens_as_its_person_goes_is_not_given_to_the_next(profiles: Profiles) -> None:
    first, second = Street(profiles), Street(profiles)
    ada = await ada_of(first)
    await ada.page.evaluate("void open('/health')")
    await first.close()
    bob = await ada_of(second)
    assert [page.url for page in bob.page.context.pages if page is not bob.page] == [f"{profiles.base_url}{PLACE}"]
    await second.close()
