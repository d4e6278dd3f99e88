"""The traces of sampled bids end here: in the transaction that stores their rows."""

from __future__ import annotations

import time
from collections.abc import Iterable

from archival_worker.consume.deliveries import Delivery
from shared.tracing.spans import Tracer, traces_in


def trace_rows(tracer: Tracer, deliveries: Iterable[Delivery], started_ns: int, dead_letters: int) -> None:
    """These messages were stored by one transaction, which is committed now.

    Args:
        started_ns: when the batch was begun, nanoseconds since the Unix epoch.
        dead_letters: how many of the batch were put aside.
    """
    ended_ns = time.time_ns()
    for delivery in deliveries:
        if not delivery.traces or delivery.batch is None:
            continue
        facts: dict[str, str | int] = {
            "db.system.name": "postgresql",
            "bidding.item_id": delivery.batch.item_id,
            "bidding.shard": delivery.batch.shard,
            "bidding.entry": f"{delivery.batch.shard_epoch}:{delivery.batch.n}",
            "bidding.rows": delivery.rows,
            "bidding.dead_letters": dead_letters,
        }
        for parent in traces_in(delivery.traces):
            span = tracer.start("store rows", parent=parent, kind="consumer", start_ns=started_ns, facts=facts)
            if span is not None:
                span.end(at_ns=ended_ns)
