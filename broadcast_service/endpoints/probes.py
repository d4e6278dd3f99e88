"""The plain HTTP endpoints: health, readiness, numbers."""

from __future__ import annotations

from typing import Any

from redis.exceptions import RedisError
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broadcast_service.core.origins import is_allowed
from broadcast_service.endpoints.operations import ITEM_HINT
from broadcast_service.service import Service
from shared import names
from shared.aliases import alias_secrets
from shared.http import probes as shared_probes
from shared.http.metrics import metrics_answer
from shared.http.probes import json_answer, readiness
from shared.http.problems import problem
from shared.http.proxies import EVERYBODY

SERVICE_NAME = "broadcast-service"


async def health(_: Request) -> Response:
    """The process runs. Says nothing about Redis or NATS: restarting this process would not bring them back."""
    return shared_probes.health(SERVICE_NAME)


async def ready(request: Request) -> Response:
    """Whether viewers should be sent here, and what is degraded.

    503 until every server has answered once, while the process stops, and whenever Redis is away, from which new
    viewers get their snapshots. If NATS is lost later, the answer stays 200, with ``degraded``: viewers keep their
    connections, new ones get the current state, and all of them get what they missed afterwards.
    """
    service: Service = request.state.service
    try:
        redis_up = await service.reader.is_up()
    except (RedisError, OSError, TimeoutError):
        redis_up = False
    parts = {"redis": redis_up, "nats": service.stream.is_up}
    service.was_ready = service.was_ready or all(parts.values())
    degraded = [name for name, is_up in parts.items() if not is_up]
    takes_viewers = redis_up and service.was_ready and not service.is_draining
    told: dict[str, Any] = {}
    if _is_inside(request):
        told = {name: "up" if is_up else "down" for name, is_up in parts.items()} | {"degraded": degraded}
    return readiness(SERVICE_NAME, works=takes_viewers, is_degraded=bool(degraded), **told)


def _is_inside(request: Request) -> bool:
    """Whether the caller's address is in ``OPERATIONS_NETWORKS``, so that it may be told details."""
    service: Service = request.state.service
    client = request.client
    # Behind a trusted proxy the server has replaced the peer by the client, with port 0; then the headers are checked
    # already. If every peer is trusted, that client is the first address of the header, which anybody can forge.
    is_told = client is not None and client.port == 0 and EVERYBODY not in service.settings.trusted_proxies
    headers = () if is_told else request.headers.raw
    return service.insiders.has(client.host if client is not None else None, headers)


async def item_stats(request: Request) -> Response:
    """How many viewers follow the item, in this process and in all; 0 also for one that does not exist."""
    item_id: str = request.path_params["item_id"]
    if not names.is_item_id(item_id):
        return problem(422, "ITEM_ID_INVALID", ITEM_HINT)
    service: Service = request.state.service
    viewers, exact = service.audience_of(item_id)
    subscribers = service.hub.subscribers(item_id)
    return json_answer({"itemId": item_id, "subscribers": subscribers, "viewers": viewers, "exact": exact})


async def metrics(request: Request) -> Response:
    """Counters for Prometheus, for addresses in ``OPERATIONS_NETWORKS``."""
    if not _is_inside(request):
        return problem(403, "FORBIDDEN", "metrics are for addresses in OPERATIONS_NETWORKS")
    service: Service = request.state.service
    text = service.metrics.render(
        connections=len(service.connections),
        items=service.hub.item_count,
        subscriptions=service.hub.subscription_count,
        stream_up=service.stream.is_up,
        bidders=len(service.private),
        addresses=len(service.addresses),
        items_lost=service.hub.lost_count,
        consumers_created=service.stream.consumers_made,
        secrets=(alias_secrets(), service.settings.feed_token_secrets),
    )
    return metrics_answer(text)


class Cors:
    """Lets pages that may use the feed read its answers to GET, although they come from another port."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        allowed = origin is not None and is_allowed(origin, headers.get("host"), self._origins)

        async def send_with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.add_vary_header("Origin")
                if allowed and origin is not None:
                    answer["access-control-allow-origin"] = origin
            await send(message)

        await self._app(scope, receive, send_with_cors)
