"""One running platform for all tests of the pages, and browsers; they end with the last of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from infrastructure.local.services import ALL_SERVICES
from infrastructure.local.stack import Stack
from tests.acceptance.browsing import House, Street, running_browser
from tests.acceptance.guarded import GuardedHouse
from tests.acceptance.profiles.pool import Profiles
from tests.stack import running_stack

# Frequent heartbeats and counts, so that no test waits long for a missing one.
OFTEN = {"FEED_TIME_S": "1", "FEED_VIEWERS_S": "0.2"}


@pytest.fixture(scope="package")
def platform(clean_machine: None) -> Iterator[Stack]:
    """All services. Shared by the tests: use item ids of your own, and restart what you kill."""
    with running_stack(services=ALL_SERVICES, env=OFTEN) as stack:
        yield stack


@pytest.fixture(scope="package")
def guarded(clean_machine: None) -> Iterator[Stack]:
    """The same where tokens say who calls."""
    with running_stack(services=ALL_SERVICES, env=OFTEN | {"AUTH_MODE": "jwt"}) as stack:
        yield stack


@pytest.fixture
def known(guarded: Stack) -> GuardedHouse:
    """Everybody who is known on the platform that asks who calls."""
    return GuardedHouse(guarded)


@pytest_asyncio.fixture(loop_scope="session")
async def lane(profiles_of_lane: Profiles) -> AsyncIterator[Street]:
    """People at the platform that asks who calls; nobody is signed in. No page may have an error."""
    street = Street(profiles_of_lane)
    yield street
    await street.close()


@pytest.fixture
def house(platform: Stack) -> House:
    """The operator of the shared platform."""
    return House(platform)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as browser:
        yield browser


@pytest.fixture(scope="package")
def profiles_of_street(platform: Stack, browser: Browser) -> Profiles:
    return Profiles(browser, platform.urls.gateway_url)


@pytest.fixture(scope="package")
def profiles_of_lane(guarded: Stack, browser: Browser) -> Profiles:
    return Profiles(browser, guarded.urls.gateway_url)


@pytest_asyncio.fixture(loop_scope="session")
async def street(profiles_of_street: Profiles) -> AsyncIterator[Street]:
    """People at the shared platform. No page may have an error."""
    street = Street(profiles_of_street)
    yield street
    await street.close()
