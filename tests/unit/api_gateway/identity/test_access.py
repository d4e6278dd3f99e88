"""Who may call what: the table, the routes that are in it, the page that shows it, and in whose name a call is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import WebSocketRoute

from api_gateway import application
from api_gateway.contract.problems import problem_of
from api_gateway.door.strangers import OPEN_PATHS
from api_gateway.identity.access import NOBODY, PAGES, TABLE, Access, Permit, Reach, reach_of
from api_gateway.settings import Settings
from shared.identity.errors import Forbidden, Unauthenticated
from shared.identity.principals import Principals
from shared.identity.settings import identity_of
from shared.identity.tokens import Principal, Role
from tests.unit.api_gateway.contexts import with_context
from tests.unit.shared.identity.issuing import SECRET, bearer, settings_of

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def built() -> tuple[Any, list[Any]]:
    """The whole application with ``AUTH_MODE=jwt``, and its routes, those of included routers too."""
    made: list[Any] = []

    class Kept(FastAPI):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(application, "FastAPI", Kept)
        given = settings_of().model_dump()
        app = application.build_app(Settings(**given))
    return app, list(_flat(made[0].routes))


def _flat(routes: list[Any]) -> Iterator[Any]:
    for route in routes:
        inner = getattr(route, "original_router", route)
        if hasattr(inner, "routes"):
            yield from _flat(inner.routes)
        else:
            yield route


def _calls(routes: list[Any]) -> list[APIRoute]:
    return [route for route in routes if isinstance(route, APIRoute)]


def test_every_route_is_in_the_table_or_a_page(built: tuple[Any, list[Any]]) -> None:
    """A new one is forbidden to all until somebody has decided who may call it."""
    _, routes = built
    # The bid has no route of the framework: hot_path.py is in front of it.
    sockets = {route.name for route in routes if isinstance(route, WebSocketRoute)}
    assert {route.name for route in _calls(routes)} | sockets | {"place_bid"} == TABLE.keys()
    pages = [route for route in routes if not isinstance(route, APIRoute | WebSocketRoute)]
    assert {route.name for route in pages} == PAGES
    assert all(route.methods <= {"GET", "HEAD"} for route in pages)


def test_nothing_but_reading_is_open_to_nobody(built: tuple[Any, list[Any]]) -> None:
    """So that a body is read of those alone who have a token."""
    for route in _calls(built[1]):
        if NOBODY in TABLE[route.name] and route.path not in OPEN_PATHS:
            assert route.methods == {"GET"}, route.name


async def test_each_route_asks_the_table_before_it_does_anything(built: tuple[Any, list[Any]]) -> None:
    app, routes = built
    # There is nothing else behind it: a route that went on would fail.
    with_state = with_context(app, _principals())

    wanted = {("POST", "/api/v1/items/{item_id}/bid"): TABLE["place_bid"]}
    for route in _calls(routes):
        [verb] = sorted(route.methods or ())
        wanted[verb, route.path.replace(":path", "")] = TABLE[route.name]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(with_state), base_url="http://gateway") as http:
        http.headers["content-type"] = "application/json"
        for (method, path), row in wanted.items():
            if NOBODY in row:
                continue
            at = re.sub(r"{\w+}", "x", path)
            token = {name.decode(): value.decode() for name, value in bearer("ann")[1:]}
            for headers, status, code in (({}, 401, "UNAUTHENTICATED"), (token, 403, "FORBIDDEN")):
                answer = await http.request(method, at, headers=headers, content=b"{")
                assert (answer.status_code, answer.json()["code"]) == (status, code), path
                assert answer.headers["www-authenticate"].startswith("Bearer")
    assert len(wanted) == len(TABLE) - 1, "a WebSocket has tests of its own"


def test_the_page_shows_the_table() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    shown = {}
    for line in page.splitlines():
        told = [cell.strip() for cell in line.strip("|").split("|")]
        if (name := re.fullmatch(r"`([a-z_]+)`", told[0])) and len(told) == 7:
            shown[name[1]] = tuple(told[2:])
    columns = (NOBODY, Role.BIDDER, Role.SELLER, Role.OPERATOR, Role.AUDITOR)
    held = {}
    for call, row in TABLE.items():
        cells = [row.get(role) for role in columns]
        held[call] = ("any",) * 5 if NOBODY in row else tuple(cell.value if cell else "no" for cell in cells)
    assert shown == held


def test_what_is_not_in_the_table_is_forbidden_to_all() -> None:
    access = Access(_principals())
    with pytest.raises(Forbidden):
        access.permit("no_such_call", bearer("ann", *Role))
    with pytest.raises(Unauthenticated):
        access.permit("no_such_call", [])


def test_of_several_roles_the_one_counts_that_reaches_farthest() -> None:
    assert reach_of("cancel_item", frozenset({Role.SELLER})) is Reach.OWN
    assert reach_of("cancel_item", frozenset({Role.SELLER, Role.OPERATOR, Role.BIDDER})) is Reach.ANY
    assert reach_of("cancel_item", frozenset()) is None


def test_in_whose_name() -> None:
    ann = Principal("ann", frozenset(), 0)
    own, every, unknown = Permit(ann, Reach.OWN), Permit(ann, Reach.ANY), Permit(None, Reach.ANY)
    assert [own.user(None, "user_id"), own.user("ann", "user_id")] == ["ann", "ann"]
    for said in ("bob", "", "Ann", "ann "):
        with pytest.raises(Forbidden, match="user_id must be 'ann'"):
            own.user(said, "user_id")
    assert [every.user(None, "user_id"), every.user("bob", "user_id"), unknown.user("bob", "user_id")] == [
        None,
        "bob",
        "bob",
    ]
    assert [own.actor(None, "x"), every.actor("ann", "x"), unknown.actor(None, "x"), unknown.actor("bob", "x")] == [
        "ann",
        "ann",
        "x",
        "bob",
    ]
    for permit in (own, every):
        with pytest.raises(Forbidden):
            permit.actor("bob", "x")
    for seller in (None, "", "bob"):
        with pytest.raises(Forbidden):
            own.require_seller(seller)
        every.require_seller(seller)
    own.require_seller("ann")


@pytest.mark.parametrize(
    ("error", "status", "header"),
    [
        (Unauthenticated("x", had_token=False), 401, "Bearer"),
        (Unauthenticated("x"), 401, 'Bearer error="invalid_token"'),
        (Forbidden("x"), 403, 'Bearer error="insufficient_scope"'),
    ],
)
def test_problems_say_what_kind_of_token_is_needed(
    error: Unauthenticated | Forbidden, status: int, header: str
) -> None:
    found, body, headers = problem_of(error)
    assert (found, headers) == (status, {"www-authenticate": header})
    assert error.code.encode() in body


def test_open_asks_for_nothing() -> None:
    access = Access(None)
    assert all(access.permit(call, []).reach is Reach.ANY and access.permit(call, []).own_id is None for call in TABLE)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"open_catalogue": True}, "OPEN_CATALOGUE must be false"),
        ({"open_identity": True}, "OPEN_IDENTITY must be false"),
        ({"feed_token_secret": SECRET}, "must differ"),
        # The settings of the gateway have validators of their own, which must not replace these.
        ({"auth_hs256_secret": "s" * 31}, "at least 32 bytes"),
        ({"feed_token_secret": "s" * 31}, "at least 32 bytes"),
        ({"auth_jwks_url": "https://issuer.example"}, "needs one of"),
        ({"auth_hs256_secret": "", "auth_jwks_url": "http://issuer.example"}, "https"),
    ],
)
def test_nothing_is_open_beside_tokens(changes: dict[str, Any], complaint: str) -> None:
    given: dict[str, Any] = settings_of().model_dump()
    Settings(**given)
    with pytest.raises(ValueError, match=complaint):
        Settings(**(given | changes))


def _principals() -> Principals:
    identity = identity_of(settings_of())
    assert identity is not None
    return identity.principals
