"""A platform that asks who calls, and those who are known there."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx

from infrastructure.local.signing_key import signed_token, signing_key
from infrastructure.local.stack import Stack
from tests.acceptance.browsing import LADDER, Person, Terms

_LOADS_ANEW = ("/", "/sign-in")
"""The pages that load a page when somebody signs in: the catalogue itself, and the page for it, which leads there."""


class GuardedHouse:
    """Everybody whom the house knows, through the API: each call has a token of who makes it."""

    def __init__(self, stack: Stack) -> None:
        self.base = stack.urls.gateway_url
        self._key = signing_key(stack.data_dir)

    def token(self, user: str, *roles: str, ttl_s: int = 3_600) -> str:
        return signed_token(self._key, user, roles, ttl_s=ttl_s, environment={})

    async def call(self, user: str, role: str, path: str, body: Any = None) -> Terms:
        headers = {"authorization": f"Bearer {self.token(user, role)}"}
        async with httpx.AsyncClient(base_url=f"{self.base}/api/v1", timeout=30, headers=headers) as http:
            answer = await (http.get(path) if body is None else http.post(path, json=body))
        assert answer.status_code in (200, 201), answer.text
        told: Terms = answer.json()
        return told

    async def create(self, item_id: str, **terms: Any) -> None:
        body = {"id": item_id, "name": f"Lot {item_id}", "increment": LADDER, **terms}
        await self.call("oda", "operator", "/items", body)

    async def bid(self, item_id: str, user: str, **amounts: float) -> Terms:
        return await self.call(user, "bidder", f"/items/{item_id}/bid", amounts)

    async def end_of(self, item_id: str) -> datetime:
        """When the bidding on the item ends."""
        return datetime.fromisoformat((await self.call("oda", "operator", f"/items/{item_id}"))["end_time"])

    async def link(self, user: str, *roles: str) -> str:
        """The path of an address that signs in, once."""
        headers = {"authorization": f"Bearer {self.token(user, *roles)}"}
        async with httpx.AsyncClient(base_url=self.base, timeout=30, headers=headers) as http:
            answer = await http.post("/api/v1/sign-in-code")
        assert answer.status_code == 201, answer.text
        return f"/sign-in#{answer.json()['code']}"

    async def sign_in(self, person: Person, *roles: str, ttl_s: int = 3_600) -> None:
        """Sign the person in by the dialog of their page; returns once the page to which that leads is loaded."""
        await person.page.get_by_role("button", name="Sign in").first.click()
        dialog = person.page.get_by_role("dialog")
        await dialog.get_by_label("Token").fill(self.token(person.name, *roles, ttl_s=ttl_s))
        button = dialog.get_by_role("button", name="Sign in")
        if urlsplit(person.page.url).path in _LOADS_ANEW:  # a test that goes elsewhere before that is led back
            async with person.page.expect_event("load"):
                await button.click()
        else:
            await button.click()
        await person.sees(".account-name", person.name)

    async def end_session(self, person: Person) -> None:
        """End their session, as if the token had expired now."""
        await person.page.evaluate(
            """async () => {
              const { href } = document.querySelector('link[rel="modulepreload"][href$="/lib/session.js"]');
              (await import(href)).endSession("expired");
            }"""
        )
        await person.sees(".account-note", "Your sign-in has ended.")
