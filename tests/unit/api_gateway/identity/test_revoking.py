"""How a gateway keeps what it knows of revoked tokens up to date, without servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from api_gateway.identity.revoking import Revoking
from shared.domain.errors import OutcomeUnknown
from shared.identity.errors import TooManyRevocations
from shared.identity.revocations import Revocation, Revocations
from shared.redis_layout.revocations import Revoked, Why

WHY = {"reason": "", "by": "oda"}


class Store:
    """Redis, as far as revocations are concerned."""

    def __init__(self) -> None:
        self.kept: dict[str, Revocation] = {}
        self.number = 0
        self.reads = 0
        self.is_away = self.is_full = False

    async def revoke(self, name: str, why: Why | None = None, *, kept_s: int = 0) -> Revoked:
        if self.is_away:
            raise TimeoutError
        if self.is_full:
            raise TooManyRevocations(1)
        self.kept[name] = Revocation(100, 1_000)
        self.number += 1
        return Revoked(self.kept[name], is_recorded=True)

    async def put_back(self, known: Mapping[str, Revocation]) -> None:
        self.kept = dict(known) | self.kept
        self.number += 1

    async def epoch(self) -> str:
        if self.is_away:
            raise TimeoutError
        return str(self.number) if self.kept else ""

    async def read(self) -> dict[str, Revocation]:
        self.reads += 1
        return dict(self.kept)


class Link:
    """NATS is away."""

    client = None


def gateway(store: Store, *, now_s: float = 500.0) -> Revoking:
    return Revoking(cast(Any, store), Link(), Revocations(leeway_s=0, now_s=lambda: now_s))


async def test_what_redis_loses_before_anybody_has_looked_is_given_back() -> None:
    store = Store()
    here, there = gateway(store), gateway(store)
    await here.look()
    await there.look()
    await here.revoke_user("ann", **WHY)
    # A crash, or a replica that lacks the last write.
    store.kept, store.number = {}, 0
    await here.look()
    await there.look()
    assert set(store.kept) == {"u:ann"}
    assert set(there.known.lasting) == {"u:ann"}


async def test_a_withdrawn_key_is_told_until_redis_has_it() -> None:
    store, withdrawn = Store(), {"f00"}
    here = Revoking(cast(Any, store), Link(), Revocations(leeway_s=0), withdrawn=withdrawn)
    store.is_away = True
    with pytest.raises(TimeoutError):
        await here.tell_withdrawn()
    assert withdrawn == {"f00"}
    store.is_away = False
    await here.tell_withdrawn()
    assert (set(store.kept), withdrawn) == ({"k:f00"}, set())


async def test_only_what_is_new_is_read() -> None:
    store = Store()
    here, there = gateway(store), gateway(store)
    for _ in range(3):
        await there.look()
    assert store.reads == 1
    assert there.known.is_known
    await here.revoke_user("ann", **WHY)
    assert set(here.known.lasting) == {"u:ann"}, "at once, without a look"
    for _ in range(3):
        await there.look()
    assert (set(there.known.lasting), store.reads) == ({"u:ann"}, 2)


async def test_a_store_that_was_wiped_is_told_again_once() -> None:
    store = Store()
    here, there = gateway(store), gateway(store)
    await here.revoke_token("x1", **WHY)
    await there.look()
    store.kept.clear()
    await here.revoke_user("bob", **WHY)
    for each in (there, here, there, here):
        await each.look()
    assert set(store.kept) == {"t:x1", "u:bob"}
    number = store.number
    for each in (there, here, there, here):
        await each.look()
    assert store.number == number, "they do not tell each other for ever"


async def test_what_holds_no_more_is_not_told_again() -> None:
    store = Store()
    late = gateway(store, now_s=999.0)
    await late.revoke_user("ann", **WHY)
    store.kept.clear()
    late.known._now_s = lambda: 1_000.0
    await late.look()
    assert store.kept == {}


async def test_while_the_store_is_away_what_is_known_holds_and_nothing_is_promised() -> None:
    store = Store()
    here = gateway(store)
    await here.revoke_user("ann", **WHY)
    store.is_away = True
    with pytest.raises(OutcomeUnknown):
        await here.revoke_user("bob", **WHY)
    with pytest.raises(TimeoutError):
        await here.look()
    assert set(here.known.lasting) == {"u:ann"}
    store.is_away, store.is_full = False, True
    with pytest.raises(TooManyRevocations):
        await here.revoke_user("bob", **WHY)


async def test_a_revocation_between_the_read_and_the_giving_back_is_read() -> None:
    store = Store()
    one, other = gateway(store), gateway(store)
    await one.revoke_user("eve", **WHY)
    store.kept.clear()  # Redis has lost it, and one gives it back.
    give_back = store.put_back

    async def meanwhile(known: Mapping[str, Revocation]) -> None:
        await other.revoke_user("mallory", **WHY)
        await give_back(known)

    store.put_back = meanwhile  # type: ignore[method-assign]
    await one.look()
    store.put_back = give_back  # type: ignore[method-assign]
    await one.look()
    assert set(one.known.lasting) == {"u:eve", "u:mallory"}


async def test_an_own_revocation_during_a_look_is_given_back_after_a_loss() -> None:
    store = Store()
    one = gateway(store)
    await one.revoke_user("ann", **WHY)
    read = store.read

    async def meanwhile() -> dict[str, Revocation]:
        await one.revoke_user("eve", **WHY)
        return await read()

    store.read = meanwhile  # type: ignore[method-assign]
    await one.look()
    store.read = read  # type: ignore[method-assign]
    # A failover to a replica that lacks the newest: the epoch of before is back.
    del store.kept["u:eve"]
    store.number -= 1
    await one.look()
    assert set(store.kept) == {"u:ann", "u:eve"}
