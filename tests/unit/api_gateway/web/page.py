"""A gateway that serves nothing but the pages, and what is read out of one."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib import resources

import httpx2 as httpx
from fastapi import FastAPI

from api_gateway.web import mount_pages

PAGES = ["/", "/sell", "/selling", "/items/lot-1", "/sign-in", "/ops", "/docs"]
STATIC = resources.files("api_gateway.web") / "static"


def client_for(feed_url: str, *, feed_port: int = 8081) -> httpx.AsyncClient:
    app = FastAPI(docs_url=None, redoc_url=None)
    mount_pages(app, feed_url=feed_url, feed_port=feed_port)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://auction.example:8080")


def policy_of(answer: httpx.Response) -> dict[str, list[str]]:
    """The policy's directives, each with its sources."""
    directives = (part.split() for part in answer.headers["content-security-policy"].split(";"))
    return {name: sources for name, *sources in directives}


class Page(HTMLParser):
    """What a page refers to, and whatever in it a strict policy would block."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.files: list[str] = []
        """Addresses of files, without the version in them."""
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.inline: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        reference = values.get("src") if tag == "script" else values.get("href") if tag == "link" else None
        if reference:
            self.addresses.append(reference)
            self.files.append(re.sub(r"^/static/[0-9a-f]{16}/", "/static/", reference))
        if values.get("id"):
            self.ids.append(str(values["id"]))
        if tag == "style" or (tag == "script" and "src" not in values):
            self.inline.append(tag)
        self.inline.extend(f"{tag} {name}" for name in values if name == "style" or name.startswith("on"))
