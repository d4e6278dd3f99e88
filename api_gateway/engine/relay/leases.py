"""Leases: which shards this gateway relays, and until when that is certain.

Each shard has a lease, so one gateway relays it at a time. The lease keeps the work from being done twice; it is not
what makes it safe. Publishing an entry twice is harmless, because the entry always has the same Nats-Msg-Id and every
consumer drops what it knows. What the lease does guard is the cursor, inside ``turn.lua``.

A gateway may reach Redis and not NATS. Then it leaves its shards to any gateway that reaches both, and keeps those that
nobody takes: their items must close in time, with or without NATS. It publishes nothing of a shard that it leaves to
others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from redis.asyncio import Redis
from redis.exceptions import RedisError

from api_gateway.engine.relay.options import RelayHealth, RelayOptions
from api_gateway.engine.relay.shard_scripts import Hold, ShardScripts
from shared import names
from shared.redis_layout.cursors import Lineage, read_cursors
from shared.supervision import heed_cancellation

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Owned:
    """A shard that this gateway relays. ``published`` mirrors the cursor of ``lineage``.

    ``is_checked``: since it took the shard, this gateway has compared the cursor with the stream. Nothing of the shard
    is published before that: its last owner may have published into a stream that is now gone.
    """

    lineage: Lineage
    published: int
    is_checked: bool = False


class Leases:
    """``owned``: the shards whose lease this gateway holds right now. ``token``: what it holds them with."""

    def __init__(
        self,
        redis: Redis,
        scripts: ShardScripts,
        options: RelayOptions,
        health: RelayHealth,
        *,
        look: asyncio.Event,
        on_adopted: Callable[[str], None],
        on_failure: Callable[[str, BaseException], None],
    ) -> None:
        """
        Args:
            look: set when leases are to be asked for now, not with the next renewal.
            on_adopted: told of every shard that is owned from now on.
            on_failure: told what did not succeed, and why; it is tried again.
        """
        self._redis = redis
        self._scripts = scripts
        self._options = options
        self._health = health
        self._look = look
        self._on_adopted = on_adopted
        self._on_failure = on_failure
        self.owned: dict[str, Owned] = {}
        self.token = secrets.token_hex(16)
        self._leased_until_s = 0.0
        # Since when NATS has not answered; and whether the leases were last renewed with "leave".
        self._unanswered_since_s: float | None = None
        self._is_leaving = False

    async def release(self) -> None:
        """Give the leases back, so that another gateway need not wait for them to run out."""
        if self.owned:
            await self._scripts.release(list(self.owned), self.token)
        self.owned.clear()

    async def run(self) -> None:
        """Take free shards, renew ours, forget those that another gateway took; until cancelled."""
        pause_s = self._options.lease_ms / 3_000
        while True:
            try:
                asked_at_s = monotonic()
                if asked_at_s >= self._leased_until_s:
                    # Another relay may have moved the cursors meanwhile, even back, so read them again.
                    self.owned.clear()
                hold = self._hold()
                results = await self._scripts.lease(names.SHARDS, self.token, self._options.lease_ms, hold=hold)
                self._leased_until_s = asked_at_s + self._options.lease_ms / 1_000
                self._is_leaving = hold == "leave"
                held = {shard for shard, ours in zip(names.SHARDS, results, strict=True) if ours is True}
                for shard in set(self.owned) - held:
                    del self.owned[shard]
                await self._forget_former_lineages()
                await self.adopt(sorted(held - set(self.owned)))
                self._health.shards_owned = len(self.owned)
                for failed in (each for each in results if isinstance(each, Exception)):
                    self._on_failure("leases", failed)
            except (RedisError, OSError, TimeoutError) as error:
                heed_cancellation()
                self._on_failure("leases", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s * random.uniform(0.8, 1.0)):
                    await self._look.wait()
            self._look.clear()

    def _hold(self) -> Hold:
        """How to ask for leases now. A gateway that has lost NATS, too, takes none that another one leaves."""
        lease_s, since_s = self._options.lease_ms / 1_000, self._unanswered_since_s
        unanswered_s = 0.0 if since_s is None else monotonic() - since_s
        is_cut_off = unanswered_s >= lease_s
        if is_cut_off != self._health.cut_off:
            logger.warning("relay: %s", "NATS does not answer" if is_cut_off else "NATS answers again")
            self._health.cut_off = is_cut_off
        return "leave" if is_cut_off else "take" if unanswered_s < lease_s / 3 else "keep"

    def expect_answer(self) -> None:
        """Note that NATS was asked for something, so that silence counts from now on."""
        if self._unanswered_since_s is None:
            self._unanswered_since_s = monotonic()

    def was_answered(self) -> None:
        """NATS answered; a gateway that was cut off asks for leases at once."""
        self._unanswered_since_s = None
        if self._is_leaving:
            self._look.set()

    async def _forget_former_lineages(self) -> None:
        """Forget shards that were lost or rebuilt, or have another run of Redis: what is known here about their cursors
        belongs to another outbox."""
        known_of = {shard: (owned.lineage, owned.published) for shard, owned in self.owned.items()}
        for shard, cursors in (await read_cursors(self._redis, await self._scripts.news(known_of))).items():
            known = self.owned.get(shard)
            if known is not None and cursors.lineage != known.lineage:
                del self.owned[shard]

    async def adopt(self, shards: Sequence[str]) -> None:
        """Begin to relay shards at their cursors; one that has no cursors yet is tried again with the next renewal."""
        for shard, cursors in (await read_cursors(self._redis, shards)).items():
            if cursors.lineage is not None:
                self.owned[shard] = Owned(cursors.lineage, cursors.published)
                self._on_adopted(shard)

    def are_certain(self) -> bool:
        """Whether the leases are certainly ours: Redis began to count their time later than this process did."""
        return not self._is_leaving and monotonic() < self._leased_until_s

    def forget(self, shard: str, owned: Owned) -> None:
        """Forget what is known of this shard; if the lease is still ours, the next renewal adopts it again."""
        if self.owned.get(shard) is owned:
            del self.owned[shard]
            self._look.set()
