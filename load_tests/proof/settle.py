"""After the load: let the platform come to rest, settle the unknown bids, then compare all stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx2 as httpx

from load_tests.generator.ledger import Ledger
from load_tests.proof.checks import Verification
from load_tests.proof.resolve import Resolution, client_view, resolve_unknown
from load_tests.proof.verify import ArchiveProgress, Sources, verify_items, wait_until_archived


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found of each item, in the order of the items, and how far the archive was in the end."""

    archive: ArchiveProgress
    resolutions: Sequence[Resolution]
    verifications: Sequence[Verification]


async def prove(
    client: httpx.AsyncClient,
    sources: Sources,
    item_ids: Sequence[str],
    ledger: Ledger,
    *,
    stall_timeout_s: float = 30.0,
    redelivery_allowed: bool = False,
    progress: Callable[[ArchiveProgress], None] | None = None,
) -> Proof:
    """Ask for every bid of the ledger whose outcome is unknown, and read all that the stores have of the items.

    Args:
        stall_timeout_s: give up waiting for the archive when it made no progress for this long.
        redelivery_allowed: whether events may stand in the stream twice, as after a fault.
        progress: called while the archive catches up.

    Raises:
        OSError, RedisError, asyncpg.PostgresError, asyncpg.InterfaceError, nats.errors.Error: a store cannot be read.
    """
    archive = await wait_until_archived(sources, item_ids, stall_timeout_s=stall_timeout_s, progress=progress)
    resolutions = [await resolve_unknown(client, item_id, ledger.items[item_id].unknown) for item_id in item_ids]
    if any(resolution.accepted for resolution in resolutions):
        archive = await wait_until_archived(sources, item_ids, stall_timeout_s=stall_timeout_s)
    views = {
        item_id: client_view(ledger.items[item_id], resolution)
        for item_id, resolution in zip(item_ids, resolutions, strict=True)
    }
    verifications = await verify_items(views, sources, redelivery_allowed=redelivery_allowed)
    return Proof(archive, resolutions, verifications)
