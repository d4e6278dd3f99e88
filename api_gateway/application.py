"""The gateway's ASGI application: the routes, the pages, and what stands in front of them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from operator import attrgetter

from fastapi import Depends, FastAPI
from starlette.types import ASGIApp

from api_gateway.context import Context
from api_gateway.contract import problems
from api_gateway.contract.openapi import DESCRIPTION, GUARDED, OPEN, TAGS, install_openapi
from api_gateway.door.edges import head_as_get, one_line_paths, with_origins
from api_gateway.door.limits import BodyLimit
from api_gateway.door.middleware import Door
from api_gateway.door.one_a_turn import OneATurn
from api_gateway.door.strangers import RefuseStrangers
from api_gateway.hot_path import HotPath
from api_gateway.identity.access import check_access
from api_gateway.opening.gateway import open_context
from api_gateway.routes import (
    batches,
    bid_sockets,
    bidders,
    bids,
    feed_tokens,
    health,
    images,
    item_batches,
    items,
    ops,
    own,
    revocations,
    sign_in,
    tokens,
)
from api_gateway.settings import Settings
from api_gateway.tracing.requests import TracedRequests
from api_gateway.web.pages import mount_pages
from shared.http.proxies import Proxies
from shared.tracing.settings import TracingSettings


def build_app(settings: Settings) -> ASGIApp:
    """The ASGI application: the hot path in front of FastAPI."""

    is_open = settings.auth_mode == "open"

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Context]]:
        async with open_context(settings) as context:
            yield {"context": context}

    app = FastAPI(
        title="Bidding platform",
        version="0.1.0",
        summary="The HTTP API of the gateway.",
        description=DESCRIPTION + (OPEN if is_open else GUARDED),
        license_info={"name": "Apache 2.0", "identifier": "Apache-2.0"},
        servers=[{"url": "/", "description": "This gateway"}],
        openapi_tags=TAGS,
        # The functions' names: what a generated client calls its methods.
        generate_unique_id_function=attrgetter("name"),
        lifespan=lifespan,
        # Its own redirects would name the host that the request says, and plain http: `problems` does it.
        redirect_slashes=False,
        # The pages have one of their own, which works without other hosts.
        docs_url=None,
        redoc_url=None,
        # Its own, which a variable can switch on, would send more of a request than we do, and of each.
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
        dependencies=[Depends(check_access)],
    )
    problems.install(app)
    app.include_router(health.router)
    app.include_router(items.router)
    app.include_router(bids.router)
    app.include_router(bidders.router)
    app.include_router(batches.router)
    app.include_router(item_batches.router)
    app.include_router(images.router)
    app.include_router(feed_tokens.router)
    app.include_router(sign_in.router)
    app.include_router(own.router)
    app.include_router(ops.router)
    app.include_router(revocations.router)
    app.include_router(tokens.router)
    app.router.routes.append(bid_sockets.route)
    mount_pages(
        app,
        feed_url=settings.broadcast_public_url,
        feed_port=settings.broadcast_port,
        image_hosts=settings.image_host_names,
        takes_images=settings.keeps_images,
        signs_in=not is_open,
    )
    install_openapi(app, is_open=is_open)
    inner = one_line_paths(head_as_get(OneATurn(app)))
    larger = {batches.PATH: batches.BYTES_MAX, item_batches.PATH: item_batches.BYTES_MAX}
    streamed = {images.PATH: settings.image_bytes_max}
    limited = BodyLimit(inner, bytes_max=settings.body_bytes_max, larger=larger, streamed=streamed)
    proxies = Proxies(settings.gateway_trusted_proxies)
    door = Door(
        limited if is_open else RefuseStrangers(limited),
        proxies=proxies,
        hsts_s=settings.hsts_s,
        other_bodies=frozenset(streamed),
    )
    app_with_bids: ASGIApp = HotPath(door)
    if TracingSettings().is_on:
        app_with_bids = TracedRequests(app_with_bids)
    return with_origins(app_with_bids, settings.origins)
