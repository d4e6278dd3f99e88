"""What became of bids whose answer was lost."""

from __future__ import annotations

import httpx2 as httpx
import pytest

from load_tests.generator.driver import open_items
from load_tests.generator.ledger import Entry, ItemLedger
from load_tests.proof import resolve
from load_tests.proof.checks import AcceptedBid
from load_tests.proof.resolve import Resolution, client_view, resolve_unknown
from tests.unit.load_tests.pretend_gateway import PretendGateway


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat at once."""
    monkeypatch.setattr(resolve, "_RESOLVE_PAUSE_S", 0.0)


async def bid(client: httpx.AsyncClient, bid_id: str, amount: str) -> None:
    body = f'{{"user_id":"ada","amount":{amount},"bid_id":"{bid_id}"}}'
    await client.post("/api/v1/items/lot-1/bid", content=body)


async def test_unknown_bids_are_settled_by_their_keys() -> None:
    gateway = PretendGateway()
    async with gateway.client() as client:
        await open_items(client, ["lot-1"], "t")
        await bid(client, "landed", "5.00")
        await bid(client, "too-low", "1.00")
        unknown = [Entry("landed", "ada", 500), Entry("too-low", "ada", 100), Entry("lost", "ada", 900)]
        resolution = await resolve_unknown(client, "lot-1", unknown)
    assert resolution == Resolution(
        accepted=(AcceptedBid(1, "landed", "ada", 500),), refused=1, never_arrived=1, unresolved=()
    )


async def test_a_gateway_that_cannot_say_is_asked_again_and_in_the_end_the_bid_stays_unknown() -> None:
    gateway = PretendGateway()
    async with gateway.client() as client:
        await open_items(client, ["lot-1"], "t")
        await bid(client, "landed", "5.00")
        gateway.fault = lambda _: "shed" if len(gateway.requests) % 3 else None
        settled = await resolve_unknown(client, "lot-1", [Entry("landed", "ada", 500)])
        assert [found.bid_id for found in settled.accepted] == ["landed"]
        gateway.fault = lambda _: "drop"
        asked = len(gateway.requests)
        stuck = await resolve_unknown(client, "lot-1", [Entry("landed", "ada", 500)])
    assert stuck.unresolved == ("landed",)
    assert len(gateway.requests) - asked == resolve._RESOLVE_ATTEMPTS_MAX


def test_the_books_and_what_was_settled_make_the_clients_view() -> None:
    ledger = ItemLedger(
        accepted=[Entry("b1", "ada", 100, 1)],
        unknown=[Entry("b2", "ada", 200)],
        refused={"TOO_LOW": 4},
        failed={"HTTP 503 OVERLOADED": 2},
    )
    settled = Resolution(accepted=(AcceptedBid(2, "b2", "ada", 200),), refused=1, unresolved=("b3",))
    view = client_view(ledger, settled)
    assert [(bid.seq, bid.bid_id) for bid in view.accepted] == [(1, "b1"), (2, "b2")]
    assert (view.refused, view.failures, list(view.unresolved)) == (5, 2, ["b3"])
    assert view.reasons == {"HTTP 503 OVERLOADED": 2}
