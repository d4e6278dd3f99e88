"""What tests of rulings ask a running gateway for."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx

API = "/api/v1"
Json = dict[str, Any]


async def create(http: httpx.AsyncClient, item_id: str, **terms: Any) -> None:
    answer = await http.post(f"{API}/items", json={"id": item_id, "name": item_id, **terms})
    assert answer.status_code == 201, answer.text


async def bid(http: httpx.AsyncClient, item_id: str, user_id: str, **more: Any) -> Json:
    answer = await http.post(f"{API}/items/{item_id}/bid", json={"user_id": user_id, **more})
    assert answer.status_code in (200, 201), answer.text
    return dict(answer.json())


async def code(http: httpx.AsyncClient, item_id: str, user_id: str, **more: Any) -> str | None:
    return (await bid(http, item_id, user_id, **more)).get("code")


async def rule(http: httpx.AsyncClient, method: str, path: str, body: Json | None = None, **query: str) -> Json:
    answer = await http.request(method, f"{API}{path}", json=body, params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())
