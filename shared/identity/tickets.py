"""Feed tickets: with one, a connection of the live feed becomes that of a bidder.

The gateway, which knows who calls, gives one out; the broadcaster, which is told it in a message, takes it. It is good
once and for half a minute, so it is worth nothing in a log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.feed_tokens import Identity
from shared.identity.once import put_once, take_once

TICKET_S: Final = 30
"""How long a ticket is good, unless it is used before."""

_KIND: Final = "feed-ticket"
_encode: Final = msgspec.json.Encoder().encode
_decoder: Final = msgspec.json.Decoder(Identity)


async def give_ticket(redis: Redis, identity: Identity) -> str:
    """A new ticket for this identity, of 128 bits.

    Raises:
        redis.RedisError, OSError, TimeoutError: Redis could not be asked.
    """
    return await put_once(redis, _KIND, _encode(identity), ttl_ms=TICKET_S * 1000)


async def take_tickets(redis: Redis, tickets: Sequence[str]) -> list[Identity | RedisError | OSError | None]:
    """Whom each of these tickets names, in their order; None for one that is none, is used, or is too old; an error for
    one whose node of a cluster could not be asked.

    Raises:
        redis.RedisError, OSError, TimeoutError: Redis could not be asked; the tickets may be used up.
    """
    found = await take_once(redis, _KIND, list(tickets))
    return [_identity(value) if isinstance(value, bytes) else value for value in found]


def _identity(value: bytes) -> Identity | None:
    try:
        return _decoder.decode(value)
    except msgspec.DecodeError:
        return None  # of another version of the gateway
