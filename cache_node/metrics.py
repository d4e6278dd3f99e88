"""The metric families of ``/metrics``, made of plain counters when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import Metric

from cache_node.context import Context
from shared.aliases import alias_secrets
from shared.http.metrics import counter, counters, gauge
from shared.secret_pairs import ALSO_USED, ALSO_USED_TEXT, totals_of

_TEXTS: Final = {
    "gets": "Keys that readers of this process asked for",
    "hits": "Gets of values that this process kept as the owner",
    "mirror_hits": "Gets of values that were mirrored here",
    "joined": "Gets that waited for a load or fetch that was under way already",
    "loads": "Questions to PostgreSQL, those for pages of the catalogue apart",
    "passing_loads": "Questions to PostgreSQL for pages of the catalogue, which do not count for the hit rate",
    "load_errors": "Questions to PostgreSQL that failed, those for pages of the catalogue among them",
    "fetches": "Keys asked of a peer",
    "fetch_failures": "Keys asked of a peer in vain and loaded here instead",
    "other_ring": "Keys asked of a peer that had another ring",
    "served": "Keys that peers asked for here",
    "served_hits": "Keys that peers asked for here and that were kept here",
    "shed": "Questions that were refused because too much was waiting for PostgreSQL",
    "forgotten": "Loads and fetches whose result was not kept, since a change of it was known",
    "too_big": "Values that were served and not kept",
    "lapses": "How often everything was dropped because the ring could not be relied on",
}


def families(context: Context) -> Iterator[Metric]:
    """All families, with this moment's numbers."""
    cache, view = context.cache, context.view
    for name, total in cache.stats.as_dict().items():
        yield counter(f"cache_{name}_total", _TEXTS[name], total)
    yield counter("cache_evictions_total", "Entries removed to make room for others", cache.evictions)
    yield gauge("cache_bytes", "Bytes kept, as counted against the bound", cache.bytes_used)
    yield gauge("cache_bytes_max", "Bound of the bytes kept", cache.bytes_max)
    yield gauge("cache_entries", "Kept entries, expired ones among them", cache.entries)
    yield gauge("cache_waiting", "Questions that wait for PostgreSQL", cache.waiting)
    yield gauge("cache_ring_epoch", "Epoch of the ring that is relied on, 0 without one", view.epoch if view else 0)
    yield gauge("cache_ring_nodes", "Nodes of the ring that is relied on", len(view.ring) if view else 0)
    if context.changes is not None:
        text = "1 while events are followed, the archive has caught up with them, and recoveries can be seen"
        yield gauge("cache_keeping", text, int(bool(context.is_keeping)))
        yield gauge("cache_unsettled", "Items whose newest event the archive may not have", context.changes.unsettled)
    yield context.get_seconds.family("cache_get_seconds", "Time to answer /api, in seconds")
    yield counters(f"cache_{ALSO_USED}", ALSO_USED_TEXT, "secret", totals_of([alias_secrets()]))
    statuses = {str(status): float(count) for status, count in sorted(context.statuses.items())}
    yield counters("cache_answers_total", "Answers to /api", "status", statuses)
