"""The scripts of the pages: what they import and ask for, and that none writes data as HTML."""

from __future__ import annotations

import posixpath
import re

import httpx2 as httpx
import pytest

from shared.domain.money import exponent_of
from tests.unit.api_gateway.web.page import STATIC, Page

ENTRIES = [
    ("/", "catalogue/catalogue.js"),
    ("/sell", "sell/sell.js"),
    ("/selling", "selling/selling.js"),
    ("/items/lot-1", "item/item.js"),
    ("/sign-in", "signin/signin.js"),
    ("/ops", "ops/ops.js"),
    ("/docs", "docs/docs.js"),
]


# The wings of js/, with those that each may import from beside itself: what all pages share first, the pages last.
WINGS: dict[str, set[str]] = {
    "lib": set(),
    "feed": {"lib"},
    "bidder": {"lib", "feed"},
    "account": {"lib"},
    "bidding": {"lib", "bidder"},
    "rulings": {"lib"},
    "catalogue": {"lib", "feed", "bidder", "account"},
    "docs": {"lib"},
    "item": {"lib", "feed", "bidder", "bidding", "account"},
    "sell": {"lib", "bidder", "account"},
    "selling": {"feed", "lib", "account", "rulings"},
    "signin": {"lib", "account"},
    "ops": {"lib", "feed", "account", "rulings"},
}


MODULES = [f"{wing.name}/{module.name}" for wing in (STATIC / "js").iterdir() for module in wing.iterdir()]


async def test_modules_import_only_modules_that_are_served(client: httpx.AsyncClient) -> None:
    assert {name for _, name in ENTRIES} <= set(MODULES)
    assert {"feed/connection.js", "feed/feed.js", "lib/api.js", "lib/money.js", "sell/terms.js"} <= set(MODULES)
    for name in MODULES:
        answer = await client.get(f"/static/js/{name}")
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        for module in imports_of(name, answer.text):
            assert module in MODULES, f"{name} imports {module}"


def test_a_script_imports_from_its_wing_and_from_those_before_it() -> None:
    assert {name.partition("/")[0] for name in MODULES} == set(WINGS)
    for name in MODULES:
        wing = name.partition("/")[0]
        imported = imports_of(name, (STATIC / "js" / name).read_text("utf-8"))
        assert {module.partition("/")[0] for module in imported} <= {wing} | WINGS[wing], name


def imports_of(name: str, text: str) -> list[str]:
    """The modules that the module ``name`` imports; paths are below js/."""
    return [posixpath.normpath(posixpath.join(name, "..", path)) for path in re.findall(r'from "([^"]+)"', text)]


def modules_of(entry: str) -> set[str]:
    """A page's script and everything that it imports."""
    found: set[str] = set()
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imports_of(name, (STATIC / "js" / name).read_text("utf-8"))
    return found


@pytest.mark.parametrize(("path", "entry"), ENTRIES)
async def test_scripts_ask_only_for_elements_that_their_page_has(
    client: httpx.AsyncClient, path: str, entry: str
) -> None:
    page = Page((await client.get(path)).text)
    asked = {
        element
        for name in modules_of(entry)
        for element in re.findall(r'byId\("([^"]+)"\)', (STATIC / "js" / name).read_text("utf-8"))
    }

    assert f"/static/js/{entry}" in page.files
    assert asked
    assert asked <= set(page.ids)


@pytest.mark.parametrize(("path", "entry"), ENTRIES)
async def test_a_page_names_all_modules_that_its_script_needs(client: httpx.AsyncClient, path: str, entry: str) -> None:
    page = Page((await client.get(path)).text)

    modules = [name for name in page.files if name.endswith(".js") and not name.startswith("/static/vendor/")]
    assert modules[0] == f"/static/js/{entry}"
    assert sorted(modules) == sorted(f"/static/js/{name}" for name in modules_of(entry))


async def test_amounts_have_the_decimals_of_the_platform() -> None:
    script = (STATIC / "js" / "lib" / "money.js").read_text("utf-8")
    listed = {
        currency: decimals
        for name, decimals in (("WITHOUT_DECIMALS", 0), ("WITH_THREE", 3))
        for currency in re.findall(rf'const {name} = "([A-Z ]+)"', script)[0].split()
    }
    offered = re.findall(r'CURRENCIES =\s+"((?:[A-Z]{3} )+[A-Z]{3})"\.split', script)[0].split()

    assert listed["JPY"] == 0
    for currency in {*listed, *offered}:
        assert exponent_of(currency) == listed.get(currency, 2), currency


async def test_no_script_writes_data_as_html(client: httpx.AsyncClient) -> None:
    writing = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function")
    for name in MODULES:
        assert not writing.search((STATIC / "js" / name).read_text("utf-8")), name
