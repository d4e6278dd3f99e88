"""Limits of what one caller, and one address, may ask for in a time; every road into the gateway counts here.

The address is counted first, before a token is looked at: to verify one takes time too. A bid, an item and a reading
are one unit each, however they come; a request with many of them is as many. The items of a batch have a bucket of
their own beside that of the caller: a catalogue of many thousands is no flood.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import Any, Final, NamedTuple

from api_gateway.door.buckets import Buckets
from shared.domain.errors import BiddingError
from shared.http.addresses import counted_as
from shared.http.proxies import Proxies, forwarded_for
from shared.pacing.buckets import Rate

BURST_S: Final = 10
"""The burst is what the bucket gets in this many seconds."""
ADDRESS: Final = "address"
CALLER: Final = "caller"
ITEMS: Final = "items"
_OF_WHAT: Final = {
    ADDRESS: "requests of this address",
    CALLER: "requests of this caller",
    ITEMS: "new items of this caller",
}
_KNOWN_MAX: Final = 10_000
_TOLD_BYTES_MAX: Final = 256

Headers = Iterable[tuple[bytes, bytes]]


class Near(NamedTuple):
    """How little of a limit is left.

    ``left``: whole units that may be asked for at once. ``reset_s``: after so many whole seconds all of it is there
    again, if nothing is asked for meanwhile; of what was refused, as much as was asked for.
    """

    policy: str
    rate: Rate
    left: int
    reset_s: int

    @property
    def headers(self) -> dict[str, str]:
        """``RateLimit`` with its policy (draft-ietf-httpapi-ratelimit-headers-10)."""
        burst, per_s = self.rate.burst, self.rate.per_s
        return {
            "ratelimit-policy": f'"{self.policy}";q={int(burst)};w={math.ceil(burst / per_s)}',
            "ratelimit": f'"{self.policy}";r={self.left};t={self.reset_s}',
        }


class RateLimited(BiddingError):
    """Too many requests; nothing was changed.

    ``policy``: whose limit it is, ``address`` or ``caller``; or ``items``, which a caller creates in batches.
    ``retry_after_s``: after this many whole seconds the same request succeeds, if nothing else is asked for meanwhile.
    """

    code = "RATE_LIMITED"

    def __init__(self, policy: str, rate: Rate, wait_s: float) -> None:
        self.policy = policy
        self.rate = rate
        self.retry_after_s = max(1, math.ceil(wait_s))
        super().__init__(
            f"too many {_OF_WHAT[policy]}: {rate.per_s:g} a second are allowed, and {rate.burst:g} at once; "
            f"try again in {self.retry_after_s} s"
        )

    @property
    def near(self) -> Near:
        """That nothing is left, as far as this request goes."""
        return Near(self.policy, self.rate, 0, self.retry_after_s)

    @property
    def headers(self) -> dict[str, str]:
        """``Retry-After``, and those of :class:`Near`."""
        return {"retry-after": str(self.retry_after_s)} | self.near.headers


class Account:
    """Who is charged for the units of a request. Requests of one address and caller may share it."""

    __slots__ = ("_rates", "_user_id", "address", "near")

    def __init__(
        self, rates: Rates | None = None, address: str = "", user_id: str = "", near: Near | None = None
    ) -> None:
        """``address``: as addresses are counted; empty where it is not known. ``near``: how little is left, once that
        is less than a quarter of what may be asked for at once; else None."""
        self._rates = rates
        self.address = address
        self._user_id = user_id
        self.near = near

    @property
    def payer(self) -> str:
        """Who is charged: the caller where one is known, else the address; empty where neither is. A caller whose id
        looks like an address is still another payer."""
        return f"{CALLER} {self._user_id}" if self._user_id else self.address

    def of(self, user_id: str) -> Account:
        """The account of this address and caller, who is charged one unit; the address has been.

        Raises:
            RateLimited: the caller has asked for too much.
        """
        if self._rates is None:
            return self
        near = self._rates.charge_caller(user_id)
        return Account(self._rates, self.address, user_id, near or self.near)

    def charge(self, units: int) -> Near | None:
        """Charge further units. Returns how little is left then, where it is little.

        Raises:
            RateLimited: it is too much; nothing was charged.
        """
        if self._rates is None or units <= 0:
            return None
        near = self._rates.charge(self.address, self._user_id, units)
        self._know(near)
        return near

    def charge_items(self, units: int) -> None:
        """Charge items that are created in one request: to the address, and to what the caller has for them.

        Raises:
            RateLimited: it is too much; nothing was charged.
        """
        if self._rates is not None and units > 0:
            self._know(self._rates.charge(self.address, self._user_id, units, ITEMS))

    def _know(self, near: Near | None) -> None:
        # Without a caller, all requests of the address may share this account, so it keeps no headers.
        if near is not None and self._user_id:
            self.near = near


FREE: Final = Account()
"""The account on which nothing is ever charged."""


class Rates:
    """The buckets of all addresses and callers that this process has to do with."""

    def __init__(
        self,
        *,
        per_caller: float,
        per_address: float,
        items_per_caller: float = 0,
        proxies: Proxies,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """``per_caller``, ``per_address``, ``items_per_caller``: units per second in the long run; 0 for no limit."""
        self._callers = _buckets(per_caller)
        self._items = _buckets(items_per_caller)
        self._addresses = _buckets(per_address)
        self._proxies = proxies
        self._clock = clock
        self.is_on = per_caller > 0 or per_address > 0 or items_per_caller > 0
        # By the address of a peer, with None for a proxy of the operator; and by what a proxy says of its client.
        self._known: dict[str, Account | None] = {}
        self._told: dict[bytes, Account] = {}
        self.refused_total: Counter[str] = Counter({ADDRESS: 0, CALLER: 0, ITEMS: 0})
        """Requests, bids and items that were refused, by policy."""

    def enter(self, peer: str | None, headers: Headers) -> Account:
        """The account of a request, whose address is charged one unit.

        Args:
            peer: the address of the other end of the connection; None where it has none.
            headers: names in lower case, and values.

        Raises:
            RateLimited: its address has asked for too much.
        """
        if not self.is_on:
            return FREE
        account = self._account(peer, headers)
        if self._addresses is not None and account.address:
            near = self._charge_one(ADDRESS, self._addresses, account.address)
            if near is not None:
                return Account(self, account.address, near=near)
        return account

    def address(self, peer: str | None, headers: Headers) -> str:
        """The client's address as it is counted; empty where a proxy of the operator does not tell it."""
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
        """The account of the client whom a proxy of the operator names. It is remembered, because parsing the addresses
        costs as much as half of a bid."""
        account = self._told.get(forwarded)
        if account is None:
            client = self._proxies.client_told(forwarded)
            account = Account(self, counted_as(client) if client else "")
            if len(forwarded) <= _TOLD_BYTES_MAX:
                if len(self._told) >= _KNOWN_MAX:
                    self._told.clear()
                self._told[forwarded] = account
        return account

    def charge_caller(self, user_id: str) -> Near | None:
        """Charge a caller one unit. Returns how much is left where that is little. Raises RateLimited."""
        if self._callers is None or not user_id:
            return None
        return self._charge_one(CALLER, self._callers, user_id)

    def _charge_one(self, policy: str, buckets: Buckets, key: str) -> Near | None:
        now_s = self._clock()
        wait_s = buckets.take_one(key, now_s)
        if not wait_s:
            return None
        if wait_s > 0:
            self.refused_total[policy] += 1
            raise RateLimited(policy, buckets.rate, wait_s)
        return self._near(policy, buckets, key, now_s)

    def _near(self, policy: str, buckets: Buckets, key: str, now_s: float) -> Near:
        left = buckets.left(key, now_s)
        return Near(policy, buckets.rate, left, math.ceil((buckets.rate.burst - left) / buckets.rate.per_s))

    def charge(self, address: str, user_id: str, units: int, policy: str = CALLER) -> Near | None:
        """Charge an address and a caller, or its ``ITEMS``; either may be empty. See :meth:`Account.charge`."""
        now_s = self._clock()
        of_caller = self._items if policy == ITEMS else self._callers
        parties = ((ADDRESS, self._addresses, address), (policy, of_caller, user_id))
        for name, buckets, key in parties:
            if buckets is not None and key and (wait_s := buckets.wait_s(key, units, now_s)):
                self.refused_total[name] += units
                raise RateLimited(name, buckets.rate, wait_s)
        near = None
        for name, buckets, key in parties:
            if buckets is not None and key and buckets.take(key, units, now_s):
                near = self._near(name, buckets, key, now_s)
        return near


def peer_of(scope: Mapping[str, Any]) -> str | None:
    """The address of the other end of an ASGI request's connection; None where it has none."""
    client = scope.get("client")
    return client[0] if client else None


def _buckets(per_s: float) -> Buckets | None:
    return Buckets(Rate(per_s, max(1.0, per_s * BURST_S))) if per_s > 0 else None
