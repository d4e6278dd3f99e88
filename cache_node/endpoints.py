"""``GET /api?key=…``, and what operators ask: health, readiness, numbers."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from cache_node.context import Context
from cache_node.metrics import families
from shared.archive_cache.packing import is_packed
from shared.archive_reads.keys import HistoryKey, ItemKey, KeyInvalid, item_of, parse_key
from shared.archive_reads.retired import decode_retired, members_of
from shared.domain.errors import InvalidInput, Unavailable
from shared.http import probes
from shared.http.metrics import exposition, metrics_answer
from shared.http.probes import json_answer, readiness
from shared.http.problems import problem
from shared.read_cache.keys import checked_key

logger = logging.getLogger(__name__)

SERVICE_NAME: Final = "cache-node"

_HINT: Final = "use items/<item>, items/<item>/bids, or items/<item>/bids/<limit>/<cursor>"
_JSON: Final = "application/json"


def context_of(request: Request) -> Context:
    """The context of the application that serves this request."""
    context = request.state.context
    assert isinstance(context, Context)
    return context


async def get_value(request: Request) -> Response:
    """A closed item's public JSON, or a page of its history, answered as the gateway does: the bids of a retired item
    with 410."""
    context = context_of(request)
    began_s = monotonic()
    answer = await _value(context, request)
    context.get_seconds.observe(monotonic() - began_s)
    context.statuses[answer.status_code] = context.statuses.get(answer.status_code, 0) + 1
    return answer


async def _value(context: Context, request: Request) -> Response:
    keys = request.query_params.getlist("key")
    if len(keys) != 1:
        return problem(422, "INVALID", f"name one key: {_HINT}", field="key")
    takes_gzip = _takes_gzip(request.headers.get("accept-encoding", ""))
    try:
        key = _public(keys[0])
        kept = await context.reads.packed(key)
        is_sent_packed = kept is not None and is_packed(kept) and takes_gzip
        if kept is not None and not is_sent_packed:
            kept = await context.reads.unpacked(key, kept)
        # What is kept of a retired item is short, and so never packed.
        retired = decode_retired(kept) if kept is not None else None
    except InvalidInput as error:
        return problem(422, error.code, str(error), field="key")
    except Unavailable as error:
        return problem(503, error.code, str(error), headers={"retry-after": str(error.retry_after_s)})
    if kept is None:
        return problem(404, "KEY_NOT_FOUND", f"there is no closed item with anything under {key!r}")
    if retired is not None:
        gone = retired.error(str(item_of(key)))
        return problem(410, gone.code, str(gone), **members_of(gone))
    headers = {"vary": "accept-encoding"}
    if is_sent_packed:
        headers["content-encoding"] = "gzip"
    return Response(kept, headers=headers, media_type=_JSON)


def _public(key: str) -> str:
    """The key itself, if it is public.

    Raises:
        InvalidInput: it is malformed, or only services may ask for it.
    """
    try:
        found = parse_key(checked_key(key))
    except KeyInvalid:
        raise NotPublic from None
    match found:
        case ItemKey("items") | HistoryKey():
            return key
    raise NotPublic


class NotPublic(InvalidInput):
    """The key is not public."""

    code = "KEY_INVALID"

    def __init__(self) -> None:
        super().__init__(f"key: {_HINT}")


def _takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding names gzip, or all codings, and does not forbid it (RFC 9110, section 12.5.3)."""
    found: dict[str, bool] = {}
    for part in accepted.lower().split(","):
        coding, _, parameters = part.partition(";")
        weight = parameters.strip().removeprefix("q=").strip()
        found[coding.strip()] = weight.strip("0.") != "" if weight else True
    return found.get("gzip", found.get("*", False))


async def health(_: Request) -> Response:
    """The process answers."""
    return probes.health(SERVICE_NAME)


async def ready(request: Request) -> Response:
    """A node works once it is in the ring; a front end while it reaches nodes or the archive."""
    context = context_of(request)
    view = context.view
    degraded: dict[str, str] = {}
    if (trouble := await context.archive.trouble()) is not None:
        degraded["postgres"] = trouble
    if context.node is None:
        if view is None or not len(view.ring):
            degraded["ring"] = "no nodes are known; everything is read from the archive"
        works = not ("ring" in degraded and "postgres" in degraded)
    else:
        works = view is not None and view.here is not None
        if not works:
            degraded["ring"] = "this node is not in the ring"
        if context.changes is not None and not context.changes.is_keeping:
            degraded["changes"] = "nothing is kept: events are not followed, or the archive has not caught up with them"
        elif not context.cache.is_telling:
            degraded["changes"] = "kept values are not served: PostgreSQL does not say whether shards were rebuilt"
    return readiness(SERVICE_NAME, works=works, is_degraded=bool(degraded), degraded=degraded)


async def stats(request: Request) -> Response:
    """The process itself, the ring that it relies on, what it keeps, and what has happened since its start.

    A front end answers everybody who reaches it, so it gives the nodes' names without their addresses.
    """
    context = context_of(request)
    view, cache = context.view, context.cache
    tells_addresses = context.node is not None
    told: dict[str, Any] = {
        "role": "front_end" if context.node is None else "node",
        "name": context.node.name if context.node is not None else None,
        "address": context.node.address if context.node is not None else None,
        "epoch": view.epoch if view is not None else None,
        "nodes": {node.name: node.address if tells_addresses else None for node in view.ring.nodes} if view else {},
        "shares": view.ring.shares() if view is not None and len(view.ring) else {},
        "keeping": context.is_keeping,
        "unsettled": context.changes.unsettled if context.changes is not None else 0,
        "bytes_used": cache.bytes_used,
        "bytes_max": cache.bytes_max,
        "entries": cache.entries,
        "evictions": cache.evictions,
        "waiting": cache.waiting,
        "hit_rate": round(cache.stats.hit_rate, 4),
        "counts": cache.stats.as_dict(),
    }
    return json_answer(told)


async def metrics(request: Request) -> Response:
    """Counters and gauges in the Prometheus text format."""
    return metrics_answer(exposition(families(context_of(request))))
