"""Limits of what one caller, and one address, may ask for in a time; every road into the gateway counts here.

The address is counted first, before a token is looked at: to verify one takes time too. A bid, an item and a reading
are one unit each, however they come; a request with many of them is as many.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import Any, Final

from api_gateway.door.buckets import Buckets
from shared.buckets import Rate
from shared.domain.errors import BiddingError
from shared.http.addresses import counted_as
from shared.http.proxies import Proxies, forwarded_for

BURST_S: Final = 10
"""The burst is what the bucket gets in so many seconds."""
ADDRESS: Final = "address"
CALLER: Final = "caller"
_KNOWN_MAX: Final = 10_000
_TOLD_BYTES_MAX: Final = 256

Headers = Iterable[tuple[bytes, bytes]]


class RateLimited(BiddingError):
    """Too many requests; nothing was changed.

    ``policy``: whose, ``address`` or ``caller``. ``retry_after_s``: after so many whole seconds the same succeeds, if
    nothing else is asked for meanwhile.
    """

    code = "RATE_LIMITED"

    def __init__(self, policy: str, rate: Rate, wait_s: float) -> None:
        self.policy = policy
        self.rate = rate
        self.retry_after_s = max(1, math.ceil(wait_s))
        super().__init__(
            f"too many requests of this {policy}: {rate.per_s:g} a second are allowed, and {rate.burst:g} at once; "
            f"try again in {self.retry_after_s} s"
        )

    @property
    def headers(self) -> dict[str, str]:
        """``Retry-After``, and ``RateLimit`` with its policy (draft-ietf-httpapi-ratelimit-headers-10)."""
        burst = int(self.rate.burst)
        return {
            "retry-after": str(self.retry_after_s),
            "ratelimit-policy": f'"{self.policy}";q={burst};w={math.ceil(self.rate.burst / self.rate.per_s)}',
            "ratelimit": f'"{self.policy}";r=0;t={self.retry_after_s}',
        }


class Account:
    """On whom the units of a request are charged. Requests of one address and caller may share it."""

    __slots__ = ("_rates", "_user_id", "address")

    def __init__(self, rates: Rates | None = None, address: str = "", user_id: str = "") -> None:
        """``address``: as addresses are counted; empty where it is not known."""
        self._rates = rates
        self.address = address
        self._user_id = user_id

    @property
    def payer(self) -> str:
        """Who is charged: the caller where one is known, else the address; empty where neither is. A caller may be
        called like an address, and is another one all the same."""
        return f"{CALLER} {self._user_id}" if self._user_id else self.address

    def of(self, user_id: str) -> Account:
        """The account of this address and caller, who is charged one unit; the address has been.

        Raises:
            RateLimited: the caller has asked for too much.
        """
        if self._rates is None:
            return self
        self._rates.charge_caller(user_id)
        return Account(self._rates, self.address, user_id)

    def charge(self, units: int) -> None:
        """Charge further units.

        Raises:
            RateLimited: it is too much; nothing was charged.
        """
        if self._rates is not None and units > 0:
            self._rates.charge(self.address, self._user_id, units)


FREE: Final = Account()
"""The account on which nothing is ever charged."""


class Rates:
    """The buckets of all addresses and callers that this process has to do with."""

    def __init__(
        self,
        *,
        per_caller: float,
        per_address: float,
        proxies: Proxies,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """``per_caller``, ``per_address``: units per second in the long run; 0 for no limit."""
        self._callers = _buckets(per_caller)
        self._addresses = _buckets(per_address)
        self._proxies = proxies
        self._clock = clock
        self._is_on = per_caller > 0 or per_address > 0
        # By the address of a peer; None for a proxy of ours. And by what a proxy says.
        self._known: dict[str, Account | None] = {}
        self._told: dict[bytes, Account] = {}
        self.refused_total: Counter[str] = Counter({ADDRESS: 0, CALLER: 0})
        """Requests, bids and items that were refused, by policy."""

    def enter(self, peer: str | None, headers: Headers) -> Account:
        """The account of a request, whose address is charged one unit.

        Args:
            peer: the address of the other end of the connection; None where it has none.
            headers: names in lower case, and values.

        Raises:
            RateLimited: its address has asked for too much.
        """
        if not self._is_on:
            return FREE
        account = self._account(peer, headers)
        if self._addresses is not None and account.address:
            self._charge_one(ADDRESS, self._addresses, account.address)
        return account

    def address(self, peer: str | None, headers: Headers) -> str:
        """How the client's address is counted; empty where a proxy of ours does not tell it."""
        return self._account(peer, headers).address

    def _account(self, peer: str | None, headers: Headers) -> Account:
        if peer is None:
            return Account(self)
        try:
            account = self._known[peer]
        except KeyError:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            account = self._known[peer] = None if self._proxies.has(peer) else Account(self, counted_as(peer))
        return self._account_told(forwarded_for(headers)) if account is None else account

    def _account_told(self, forwarded: bytes) -> Account:
        """Of the client whom a proxy of ours names. To read addresses costs as much as half of a bid."""
        account = self._told.get(forwarded)
        if account is None:
            client = self._proxies.client_told(forwarded)
            account = Account(self, counted_as(client) if client else "")
            if len(forwarded) <= _TOLD_BYTES_MAX:
                if len(self._told) >= _KNOWN_MAX:
                    self._told.clear()
                self._told[forwarded] = account
        return account

    def charge_caller(self, user_id: str) -> None:
        """Charge a caller one unit. Raises RateLimited."""
        if self._callers is not None and user_id:
            self._charge_one(CALLER, self._callers, user_id)

    def _charge_one(self, policy: str, buckets: Buckets, key: str) -> None:
        wait_s = buckets.take_one(key, self._clock())
        if wait_s:
            self.refused_total[policy] += 1
            raise RateLimited(policy, buckets.rate, wait_s)

    def charge(self, address: str, user_id: str, units: int) -> None:
        """Charge an address and a caller; either may be empty. See :meth:`Account.charge`."""
        now_s = self._clock()
        parties = ((ADDRESS, self._addresses, address), (CALLER, self._callers, user_id))
        for policy, buckets, key in parties:
            if buckets is not None and key and (wait_s := buckets.wait_s(key, units, now_s)):
                self.refused_total[policy] += units
                raise RateLimited(policy, buckets.rate, wait_s)
        for _, buckets, key in parties:
            if buckets is not None and key:
                buckets.take(key, units, now_s)


def peer_of(scope: Mapping[str, Any]) -> str | None:
    """The address of the other end of an ASGI request's connection; None where it has none."""
    client = scope.get("client")
    return client[0] if client else None


def _buckets(per_s: float) -> Buckets | None:
    return Buckets(Rate(per_s, max(1.0, per_s * BURST_S))) if per_s > 0 else None
