"""The pages: what is served, under which policy, and that nothing out of a request finds its way into them."""

from __future__ import annotations

import re
from importlib import resources

import httpx2 as httpx
import pytest
from fastapi import FastAPI

from api_gateway.web import mount_pages
from api_gateway.web.pages import Elsewhere, content_security_policy
from tests.unit.api_gateway.web.page import PAGES, STATIC, Page, client_for, policy_of

PARTS = resources.files("api_gateway.web") / "parts"


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_html_that_is_always_checked_again(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.text.startswith("<!doctype html>")


@pytest.mark.parametrize("path", [*PAGES, "/items/not%20an%20id"])
async def test_what_pages_share_stands_in_each_of_them_once(client: httpx.AsyncClient, path: str) -> None:
    text = (await client.get(path)).text

    assert "<!-- part" not in text
    text = re.sub('="/static/[0-9a-f]{16}/', '="/static/', text)
    for name in ("head", "brand", "foot"):
        assert text.count((PARTS / f"{name}.html").read_text("utf-8")) == 1, name


@pytest.mark.parametrize("path", [path for path in PAGES if path != "/docs"])
@pytest.mark.parametrize("signs_in", [False, True])
async def test_a_page_has_a_place_for_the_account_where_people_sign_in(path: str, signs_in: bool) -> None:
    """Scripts tell by it whether they have to. Swagger UI has a form of its own for a token."""
    app = FastAPI()
    mount_pages(app, feed_url="", signs_in=signs_in)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://auction.example") as http:
        text = (await http.get(path)).text
    page = Page(text)
    assert page.ids.count("account") == int(signs_in)
    # People who sign in find in the bar what they may use. Where nobody signs in, the catalogue offers it to everybody.
    assert ('<a href="/ops">' in text) == (path == "/" and not signs_in)
    assert '<a href="/docs">' in text
    assert page.inline == []


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_needs_nothing_inline_and_nothing_from_elsewhere(client: httpx.AsyncClient, path: str) -> None:
    page = Page((await client.get(path)).text)

    assert page.inline == []
    assert page.files
    assert len(page.ids) == len(set(page.ids))
    for reference in page.addresses:
        answer = await client.get(reference)
        assert answer.status_code == 200, reference
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable", reference


@pytest.mark.parametrize("prefix", ["", "0123456789abcdef/"])
async def test_a_file_of_no_version_or_another_one_is_always_checked_again(
    client: httpx.AsyncClient, prefix: str
) -> None:
    answer = await client.get(f"/static/{prefix}js/lib/dom.js")

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-cache"


def colours_of(scheme: str) -> dict[str, tuple[int, int, int]]:
    """The named colours of the light or the dark scheme."""
    style = (STATIC / "css" / "base.css").read_text("utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    hexes = dict(re.findall(r"--([a-z-]+): #([0-9a-f]{6});", light))
    if scheme == "dark":
        hexes |= dict(re.findall(r"--([a-z-]+): #([0-9a-f]{6});", dark))
    return {name: (int(text[:2], 16), int(text[2:4], 16), int(text[4:], 16)) for name, text in hexes.items()}


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """The contrast ratio of WCAG 2.2."""

    def luminance(colour: tuple[int, int, int]) -> float:
        parts = [part / 255 for part in colour]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_every_ground_that_it_stands_on(scheme: str) -> None:
    colours = colours_of(scheme)
    pairs = [(text, ground) for text in ("ink", "ink-soft") for ground in ("paper", "sheet", "plate")]
    pairs += [(f"{tone}", f"{tone}-soft") for tone in ("green", "brass", "claret")]
    pairs += [(tone, ground) for tone in ("green", "brass", "claret") for ground in ("paper", "sheet")]
    pairs += [("ink-soft", f"{tone}-soft") for tone in ("green", "claret")] + [("paper", "ink")]
    ratios = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    ratios |= {("white", button): contrast((255, 255, 255), colours[button]) for button in ("button", "button-hover")}

    assert {pair: ratio for pair, ratio in ratios.items() if ratio < 4.5} == {}
    # What is no text but must be seen: the edges of fields, and the ring around what has the focus.
    edges = {
        (edge, ground): contrast(colours[edge], colours[ground])
        for edge in ("field", "focus")
        for ground in ("paper", "sheet")
    }
    assert {pair: ratio for pair, ratio in edges.items() if ratio < 3} == {}


@pytest.mark.parametrize("path", [*PAGES, "/items/not%20an%20id"])
async def test_the_policy_allows_our_own_files_and_the_feed_alone(client: httpx.AsyncClient, path: str) -> None:
    policy = policy_of(await client.get(path))

    assert policy["default-src"] == ["'none'"]
    assert policy["script-src"] == ["'self'"]
    assert policy["style-src"] == ["'self'"]
    assert policy["connect-src"] == ["'self'", "ws://127.0.0.1:8081"]
    assert policy["frame-ancestors"] == ["'none'"]
    assert policy["base-uri"] == ["'none'"]
    assert policy["require-trusted-types-for"] == ["'script'"]
    # The style of Swagger UI has its icons within it.
    assert policy["img-src"] == (["'self'", "data:"] if path == "/docs" else ["'self'"])


@pytest.mark.parametrize(
    ("feed_url", "url", "source"),
    [
        ("wss://feed.example.com", "wss://feed.example.com", "wss://feed.example.com"),
        ("https://feed.example.com/", "wss://feed.example.com", "wss://feed.example.com"),
        ("http://10.0.0.7:8081", "ws://10.0.0.7:8081", "ws://10.0.0.7:8081"),
        # A policy names origins; the path belongs to the address alone.
        ("wss://example.com/feed", "wss://example.com/feed", "wss://example.com"),
    ],
)
async def test_a_configured_feed_is_told_and_allowed(feed_url: str, url: str, source: str) -> None:
    async with client_for(feed_url) as client:
        config = await client.get("/config.json")
        policy = policy_of(await client.get("/"))

    assert config.headers["content-type"] == "application/json"
    assert config.headers["cache-control"] == "no-cache"
    assert config.json()["feed_url"] == url
    assert policy["connect-src"] == ["'self'", source]


async def test_without_a_configured_feed_it_is_on_the_host_of_the_page() -> None:
    async with client_for("", feed_port=9001) as client:
        config = (await client.get("/config.json")).json()
        policy = policy_of(await client.get("/"))

    assert config == {"feed_url": "", "feed_port": 9001, "takes_images": False}
    assert policy["connect-src"] == ["'self'", "ws://auction.example:9001", "wss://auction.example:9001"]


@pytest.mark.parametrize("host", ["evil.example; script-src *", "a b", "a\n", "*", "::1", "x" * 300, "", None])
def test_a_host_that_is_no_name_does_not_reach_the_policy(host: str | None) -> None:
    policy = content_security_policy(Elsewhere("", 8081), host)

    assert "connect-src 'self' ws: wss:;" in policy
    assert policy == content_security_policy(Elsewhere("", 8081), None)


async def test_a_hostile_host_header_cannot_add_to_the_policy() -> None:
    async with client_for("") as client:
        policy = policy_of(await client.get("/", headers={"Host": "evil.example; script-src *"}))

    assert policy["script-src"] == ["'self'"]


@pytest.mark.parametrize(
    "feed_url",
    [
        "feed.example.com",
        "ftp://feed.example.com",
        "ws://",
        "ws://a b",
        "ws://a;script-src *",
        "ws://a/?x=1",
        "ws://u:p@a",
    ],
)
def test_a_feed_that_is_no_address_is_refused_at_the_start(feed_url: str) -> None:
    with pytest.raises(ValueError, match="feed_url"):
        mount_pages(FastAPI(), feed_url=feed_url)


@pytest.mark.parametrize("item_id", ["a", "lot-1", "A_b-9", "x" * 64])
async def test_every_item_has_the_same_page(client: httpx.AsyncClient, item_id: str) -> None:
    answer = await client.get(f"/items/{item_id}")

    assert answer.status_code == 200
    assert answer.content == (await client.get("/items/another")).content
    assert b"/js/item/item.js" in answer.content


@pytest.mark.parametrize(
    "item_id",
    ["%3Cscript%3Ealert(1)", "a%20b", "x" * 65, "%F0%9F%98%80", "%00", "a%22onload=%22x", "a.b", "a%0A"],
)
async def test_an_id_that_no_item_can_have_is_not_found(client: httpx.AsyncClient, item_id: str) -> None:
    answer = await client.get(f"/items/{item_id}")

    assert answer.status_code == 404
    assert b"<h1>There is nothing here</h1>" in answer.content
    assert b"<script" not in answer.content


async def test_head_is_answered_and_post_is_not(client: httpx.AsyncClient) -> None:
    head = await client.head("/")

    assert (head.status_code, head.content) == (200, b"")
    assert (await client.post("/")).status_code == 405


async def test_pages_are_not_part_of_the_documented_api() -> None:
    app = FastAPI()
    mount_pages(app, feed_url="")

    assert app.openapi()["paths"] == {}


async def test_the_former_address_of_the_description_leads_to_it(client: httpx.AsyncClient) -> None:
    answer = await client.get("/redoc")

    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")
