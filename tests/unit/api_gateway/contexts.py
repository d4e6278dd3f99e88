"""The context of a gateway that has nothing but its door: enough for what is refused, and for files."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

from api_gateway.context import Context
from api_gateway.door.bodies import BodyBytes
from api_gateway.door.foreign_pages import ForeignPages
from api_gateway.door.rates import Rates
from api_gateway.identity.access import Access
from shared.http.proxies import Proxies
from shared.identity.principals import Principals


def context_of(principals: Principals | None) -> Any:
    """``principals``: None with ``AUTH_MODE=open``."""
    context: Any = SimpleNamespace(
        pages=ForeignPages((), json_only=principals is not None),
        access=Access(principals),
        rates=Rates(per_caller=0, per_address=0, proxies=Proxies("")),
        body_bytes=BodyBytes(2**20, 0),
        traces=None,
        committer=SimpleNamespace(sheds=lambda: False),
    )
    context.permit = partial(Context.permit, context)
    return context


def with_context(app: Any, principals: Principals | None = None) -> Any:
    """The application as a server calls it that has such a context."""
    context = context_of(principals)

    async def with_state(scope: Any, receive: Any, send: Any) -> None:
        await app(scope | {"state": {"context": context}}, receive, send)

    return with_state
