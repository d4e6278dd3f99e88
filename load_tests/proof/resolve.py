"""What became of the bids whose answer was lost: asked by their keys, after the load."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import httpx2 as httpx

from load_tests.concurrency import map_bounded
from load_tests.generator.answers import BidAnswer, Fate, read_stored_verdict
from load_tests.generator.ledger import Entry, ItemLedger
from load_tests.proof.checks import AcceptedBid, ClientView

_RESOLVE_AT_ONCE = 16
_RESOLVE_ATTEMPTS_MAX = 5
_RESOLVE_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Resolution:
    """What became of the unknown bids of one item; ``never_arrived`` were not placed at all."""

    accepted: tuple[AcceptedBid, ...] = ()
    refused: int = 0
    never_arrived: int = 0
    unresolved: tuple[str, ...] = ()


async def resolve_unknown(client: httpx.AsyncClient, item_id: str, unknown: Sequence[Entry]) -> Resolution:
    """Ask ``bids/by-key`` about every bid whose answer was lost. Ask only after the load: a bid may still be
    on its way before.
    """

    async def ask(entry: Entry) -> BidAnswer | None:
        return await _stored_verdict(client, item_id, entry)

    verdicts = await map_bounded(ask, unknown, at_once=_RESOLVE_AT_ONCE)
    accepted: list[AcceptedBid] = []
    unresolved: list[str] = []
    refused = never_arrived = 0
    for entry, verdict in zip(unknown, verdicts, strict=True):
        if verdict is None:
            never_arrived += 1
        elif verdict.fate is Fate.ACCEPTED:
            accepted.append(AcceptedBid(verdict.seq or 0, entry.bid_id, entry.user_id, entry.amount))
        elif verdict.fate is Fate.REFUSED:
            refused += 1
        else:
            unresolved.append(entry.bid_id)
    return Resolution(tuple(accepted), refused, never_arrived, tuple(unresolved))


async def _stored_verdict(client: httpx.AsyncClient, item_id: str, entry: Entry) -> BidAnswer | None:
    answer: BidAnswer | None = BidAnswer(Fate.UNKNOWN, "NO_ANSWER")
    for attempt in range(_RESOLVE_ATTEMPTS_MAX):
        if attempt:
            await asyncio.sleep(_RESOLVE_PAUSE_S)
        try:
            path = f"/api/v1/bids/by-key/{quote(entry.bid_id, safe='')}"
            response = await client.get(path, params={"item_id": item_id, "user_id": entry.user_id})
        except httpx.HTTPError:
            continue
        answer = read_stored_verdict(response.status_code, response.content)
        if answer is None or answer.fate in (Fate.ACCEPTED, Fate.REFUSED):
            break
    return answer


def client_view(ledger: ItemLedger, resolution: Resolution) -> ClientView:
    """The books of an item after its unknown bids were resolved."""
    accepted = [AcceptedBid(entry.seq, entry.bid_id, entry.user_id, entry.amount) for entry in ledger.accepted]
    return ClientView(
        accepted=[*accepted, *resolution.accepted],
        refused=sum(ledger.refused.values()) + resolution.refused,
        failures=sum(ledger.failed.values()),
        unresolved=resolution.unresolved,
        reasons=ledger.failed,
    )
