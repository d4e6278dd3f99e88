"""Who calls, what they may do, and how much of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from redis.asyncio import Redis

from api_gateway.bid_socket.sockets import BidSockets
from api_gateway.door.rates import Rates
from api_gateway.identity.api_keys import ApiKeys
from api_gateway.identity.revoking import Revoking
from api_gateway.reads.archive import Archive
from api_gateway.settings import Settings
from shared.clients.nats import NatsLink
from shared.http.proxies import Proxies
from shared.identity.keys import FetchedKeys
from shared.identity.principals import Principals
from shared.identity.revocations import Revocations
from shared.identity.settings import Identity, identity_of
from shared.redis_layout.revocations import RevocationStore


@dataclass(frozen=True, slots=True)
class Callers:
    """Who is believed to be whom.

    Attributes:
        identity: None with ``AUTH_MODE=open``.
        revoked: the tokens that are believed no longer.
        proxies: whose word for a caller's address is taken.
    """

    identity: Identity | None
    revoked: Revocations
    proxies: Proxies

    @property
    def principals(self) -> Principals | None:
        """What reads tokens; None where nobody has one."""
        return None if self.identity is None else self.identity.principals

    @property
    def fetched_keys(self) -> FetchedKeys | None:
        """The keys of tokens, where they are fetched."""
        return None if self.identity is None else self.identity.fetched


def callers_of(settings: Settings) -> Callers:
    """Those whom the settings name."""
    revoked = Revocations(leeway_s=settings.auth_leeway_s)
    return Callers(identity_of(settings, revoked), revoked, Proxies(settings.gateway_trusted_proxies))


def revoking_of(
    settings: Settings, callers: Callers, redis: Redis, nats: NatsLink, on_outbox: Callable[[str], None]
) -> Revoking | None:
    """What revokes tokens; None where there are none."""
    if callers.identity is None:
        return None
    return Revoking(
        RevocationStore(redis, outbox_entries_max=settings.outbox_entries_max),
        nats,
        callers.revoked,
        on_outbox=on_outbox,
        withdrawn=None if callers.fetched_keys is None else callers.fetched_keys.withdrawn,
    )


def api_keys_of(settings: Settings, callers: Callers, archive: Archive) -> ApiKeys | None:
    """What gives tokens for API keys; None where there are none."""
    identity = callers.identity
    if identity is None or identity.signer is None or not settings.api_key_secrets:
        return None
    return ApiKeys(archive.asking, identity.signer, settings.api_key_secrets, callers.revoked)


def rates_of(settings: Settings, callers: Callers) -> Rates:
    """How much a caller and an address may ask for."""
    return Rates(
        per_caller=settings.guarded("gateway_caller_rate_max"),
        items_per_caller=settings.guarded("gateway_items_rate_max"),
        per_address=settings.guarded("gateway_address_rate_max"),
        proxies=callers.proxies,
    )


def bid_sockets_of(settings: Settings) -> BidSockets:
    """WebSockets of bids, and how many there may be."""
    return BidSockets(
        connections_max=settings.bid_sockets_max,
        each_max=settings.guarded("bid_sockets_per_address_max"),
        caller_max=settings.bid_sockets_per_caller_max,
    )
