"""The verdict that is kept under one key of a closed item, as Redis had it while it had the item."""

from __future__ import annotations

from typing import Final

from shared.archive_reads.asking import Fetch
from shared.archive_reads.origin import closed_items
from shared.archive_reads.statements import statements
from shared.archive_reads.verdicts import answered, sealed_answer
from shared.domain.errors import Unavailable
from shared.redis_layout.limits import VERDICT_KEEP_S

_SQL: Final = statements("keyed")
_KEEP_US: Final = VERDICT_KEEP_S * 1_000_000


async def keyed_verdicts(fetch: Fetch, item_id: str, user_id: str | None, key: str) -> dict[str, bytes]:
    """The fields of the verdicts' hash that may hold the verdict of this user under this key, or of anybody where
    ``user_id`` is None; :func:`shared.redis_layout.stored_verdicts.find_verdict` reads them.

    Only accepted bids have one, for as long as Redis would have kept it: a day after the item was over.

    Raises:
        Unavailable: PostgreSQL cannot be asked, or its chain of hashes does not have the item's newest event yet.
    """
    found: dict[str, bytes] = {}
    bids = await fetch(_SQL["read_keyed_bid"], item_id, key, _KEEP_US)
    if bids and bids[0]["bid_id"] == key:
        # The terms as they are, with the reserve: a verdict says whether it was met.
        item = (await closed_items(fetch, [item_id])).get(item_id)
        if item is None:
            # The item came back and one of its bids was struck a moment ago. The bid that is asked about exists all the
            # same, and must not be reported as unknown.
            raise Unavailable("a change of this item is being archived; try again", retry_after_s=1)
        follower = bids[1] if len(bids) > 1 else None
        answer = answered(bids[0], follower, item.terms)
        if answer is not None:
            found[answer.fields[0]] = answer.verdict.encode()
    for fact in await fetch(_SQL["read_keyed_facts"], item_id, key, user_id, _KEEP_US):
        kept = sealed_answer(fact)
        if kept.verdict.encode() not in found.values():
            field = next((field for field in kept.fields if field not in found), None)
            if field is not None:
                found[field] = kept.verdict.encode()
    return found
