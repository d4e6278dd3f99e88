"""Keeps what this gateway knows of revoked tokens up to date, and revokes.

1. An operator revokes at one gateway: it is written in Redis, and told by NATS. 2. Every gateway that hears it reads
Redis. 3. One that does not hear it looks every two seconds, and more often while NATS is away. So what is told by NATS
is only that there is something to read, and nobody is revoked by a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final, Protocol

from nats.errors import Error as NatsError
from redis.exceptions import RedisError

from shared.clients.nats import Client, NatsLink
from shared.domain.errors import OutcomeUnknown
from shared.identity.errors import TooManyRevocations
from shared.identity.revocations import KEPT_OF_KEYS_S, OF_SIGNER, OF_TOKEN, OF_USER, Revocations
from shared.names import REVOKED_SUBJECT
from shared.pacing.seldom import Seldom
from shared.redis_layout.keys import REVOCATIONS_KEY, shard_of_key
from shared.redis_layout.revocations import REVOKE_TOKEN, REVOKE_TOKENS, RevocationStore, Revoked, Why

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 2.0
LOOK_OFTEN_S: Final = 0.5
"""The same while this gateway does not hear NATS."""
_AT_ONCE_S: Final = 0.1
"""The least time between two looks, however many messages come."""
_SUBSCRIBE_S: Final = 1.0


class Link(Protocol):
    """See :class:`shared.clients.nats.NatsLink`."""

    @property
    def client(self) -> Client | None: ...


class Revoking:
    """The revocations of one gateway."""

    def __init__(
        self,
        store: RevocationStore,
        link: Link | NatsLink,
        known: Revocations,
        *,
        on_outbox: Callable[[str], None] = lambda shard: None,
        withdrawn: set[str] | None = None,
    ) -> None:
        """
        Args:
            on_outbox: called with a shard where there is something for the archive.
            withdrawn: names of signing keys that this gateway believes no longer, and has to tell the others of; taken
                from it when that is done.
        """
        self.known = known
        self._withdrawn = set() if withdrawn is None else withdrawn
        self._on_outbox = on_outbox
        self._store = store
        self._link = link
        self._epoch: str | None = None
        self._own = 0
        """How many revocations this gateway has made: one that is made while a look reads is not in what it read."""
        self._is_news = asyncio.Event()
        self._heard_on: Client | None = None
        self._cannot = Seldom(logger)

    async def revoke_user(self, user_id: str, *, reason: str, by: str) -> Revoked:
        """Revoke all tokens of a user that were issued until now. Raises as :meth:`_revoke`."""
        return await self._revoke(f"{OF_USER}{user_id}", Why(REVOKE_TOKENS, user_id, reason, by))

    async def revoke_token(self, token_id: str, *, reason: str, by: str) -> Revoked:
        """Revoke the token of this ``jti``. Raises as :meth:`_revoke`."""
        return await self._revoke(f"{OF_TOKEN}{token_id}", Why(REVOKE_TOKEN, token_id, reason, by))

    async def _revoke(self, name: str, why: Why) -> Revoked:
        """
        Raises:
            TooManyRevocations: there is no room for it.
            OutcomeUnknown: Redis did not answer; to do it again does no harm.
        """
        try:
            done = await self._store.revoke(name, why)
        except (RedisError, OSError, TimeoutError) as error:
            raise OutcomeUnknown from error
        self.known.add({name: done.revocation})
        # 1. This is in Redis, under an epoch. 2. Redis loses both. 3. The next look finds the epoch of before, and
        # would take what is there for all that is known here.
        self._epoch = None
        self._own += 1
        if done.is_recorded and (shard := shard_of_key(REVOCATIONS_KEY)) is not None:
            self._on_outbox(shard)
        client = self._link.client
        if client is not None:
            with contextlib.suppress(NatsError, OSError):
                await client.publish(REVOKED_SUBJECT, b"")
        return done

    async def look(self) -> None:
        """Read what is new, and give Redis back what it has lost.

        Raises:
            RedisError, OSError, TimeoutError: Redis cannot be asked.
        """
        epoch: str | None = await self._store.epoch()
        if self.known.is_known and epoch == self._epoch:
            return
        own = self._own
        found = await self._store.read()
        self.known.add(found)
        self.known.is_known = True
        if lost := {name: one for name, one in self.known.lasting.items() if name not in found}:
            with contextlib.suppress(TooManyRevocations):
                await self._store.put_back(lost)
                # Another gateway may have revoked something since the read, so the epoch of now may cover what was not
                # read. The next look reads again.
                epoch = None
        self._epoch = epoch if own == self._own else None

    async def tell_withdrawn(self) -> None:
        """Tell broadcasters, which have no keys, that what was given for tokens of these keys is good no longer. Each
        gateway does, as each finds out for itself, and may have given something until then.

        Raises:
            RedisError, OSError, TimeoutError: Redis cannot be asked; they are told the next time.
        """
        for name in list(self._withdrawn):
            # Before it is told: a key may come back, and be withdrawn again, meanwhile.
            self._withdrawn.discard(name)
            try:
                await self._store.revoke(f"{OF_SIGNER}{name}", kept_s=KEPT_OF_KEYS_S)
            except TooManyRevocations as error:
                logger.error("sessions of the feed outlive a signing key that was withdrawn: %s", error)
            except (RedisError, OSError, TimeoutError):
                self._withdrawn.add(name)
                raise

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            self._is_news.clear()
            try:
                await self._listen()
                await self.tell_withdrawn()
                await self.look()
            except (RedisError, OSError, TimeoutError) as error:
                # The revocations that are known go on to hold.
                self._cannot.warning("revoked tokens cannot be read: %s: %s", type(error).__name__, error)
            await asyncio.sleep(_AT_ONCE_S)
            with contextlib.suppress(TimeoutError):
                is_heard = self._heard_on is not None and self._heard_on is self._link.client
                async with asyncio.timeout((LOOK_EVERY_S if is_heard else LOOK_OFTEN_S) - _AT_ONCE_S):
                    await self._is_news.wait()

    async def _listen(self) -> None:
        """Hear of revocations at once, while NATS is there. A client that reconnects subscribes anew by itself."""
        client = self._link.client
        if client is None or client is self._heard_on:
            return
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            async with asyncio.timeout(_SUBSCRIBE_S):
                await client.subscribe(REVOKED_SUBJECT, cb=self._hear, pending_msgs_limit=16)
            self._heard_on = client

    async def _hear(self, _: object) -> None:
        self._is_news.set()
