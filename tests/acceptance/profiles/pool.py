"""Profiles of a browser, one for each person of a test, of which the next test gets the same ones, cleaned.

A new profile has a window, a process and empty caches of its own, and to make those costs as much as all that most
tests do in it. A profile of the pool keeps them: each person opens a new page in it, in the process that has run the
same scripts before.
"""

from __future__ import annotations

from typing import Final, Self

from playwright.async_api import Browser, BrowserContext, CDPSession, Page

DESK: Final = (1280, 900)
# Nor anything of Playwright's clock, which is there for all pages to come.
_IS_AS_NEW: Final = """() => {
  const native = [Date, Date.now, performance.now, setTimeout, setInterval, requestAnimationFrame];
  const empty = localStorage.length === 0 && document.cookie === "";
  return empty && native.every((each) => String(each).includes("[native code]"));
}"""


class Profile:
    """A browser context. Its parked page shows a picture of the platform at ``base_url``, so that the process of that
    site goes on between the tests."""

    def __init__(self, context: BrowserContext, parked: Page, session: CDPSession, base_url: str) -> None:
        self.context = context
        self._parked = parked
        self._session = session
        self._base_url = base_url

    @classmethod
    async def make(cls, browser: Browser, base_url: str) -> Self:
        # Without motion, for which the browser would draw 60 pictures a second of each page that is open.
        context = await browser.new_context(
            viewport={"width": DESK[0], "height": DESK[1]}, locale="en-US", timezone_id="UTC", reduced_motion="reduce"
        )
        parked = await context.new_page()
        await parked.goto(f"{base_url}/favicon.svg")
        return cls(context, parked, await context.new_cdp_session(parked), base_url)

    async def clean(self) -> bool:
        """Close its pages and remove what they have stored. Whether it is as new but for the files it has loaded."""
        for page in self.context.pages:
            if page is not self._parked:
                await page.close()
        await self.context.clear_cookies()
        await self.context.set_offline(False)
        # In the process of the pages, after all that they have stored when they were closed.
        await self._parked.evaluate("localStorage.clear()")
        await self._session.send("Storage.clearDataForOrigin", {"origin": self._base_url, "storageTypes": "all"})
        is_as_new: bool = await self._parked.evaluate(_IS_AS_NEW)
        return is_as_new

    @property
    def has_other_pages(self) -> bool:
        """Whether another page than the parked one is open: one that a page of the last person has opened as it went is
        told only after they are gone."""
        return self.context.pages != [self._parked]


class Profiles:
    """Those of one browser, for people at the platform at ``base_url``."""

    def __init__(self, browser: Browser, base_url: str) -> None:
        self.base_url = base_url
        self._browser = browser
        self._free: list[Profile] = []

    async def take(self) -> Profile:
        while self._free:
            profile = self._free.pop()
            if not profile.has_other_pages:
                return profile
            await profile.context.close()
        return await Profile.make(self._browser, self.base_url)

    async def give_back(self, profile: Profile) -> None:
        """Clean it for the next one who takes it, or close it for good if something in it stays."""
        if await profile.clean():
            self._free.append(profile)
        else:
            await profile.context.close()
