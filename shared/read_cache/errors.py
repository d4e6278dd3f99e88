"""What the cache raises. Errors of an origin's own pass through as they are."""

from __future__ import annotations

from shared.domain.errors import BiddingError, InvalidInput


class KeyInvalid(InvalidInput):
    """No value can ever be under this key."""

    code = "KEY_INVALID"
    field = "key"

    def __init__(self, key: str, reason: str) -> None:
        self.key = key[:64]
        self.reason = reason
        super().__init__(f"the key {self.key!r} {reason}")


class Overloaded(BiddingError):
    """The origin is too slow for what is asked of it; nothing was asked for this call. Try again after a while."""

    code = "OVERLOADED"

    def __init__(self, what: str, retry_after_s: float = 1.0) -> None:
        self.what = what
        self.retry_after_s = retry_after_s
        super().__init__(f"{what}; try again in {retry_after_s:g} s")


class OriginSilent(Overloaded):
    """Likewise, and it has answered nothing to this process for a while. It may answer others."""


class OriginSlow(BiddingError, TimeoutError):
    """The origin was asked and did not answer in time."""

    code = "ORIGIN_SLOW"

    def __init__(self, key: str, timeout_s: float) -> None:
        self.key = key
        self.timeout_s = timeout_s
        super().__init__(f"the origin did not answer for {key} within {timeout_s:g} s")


class PeerFailed(BiddingError, ConnectionError):
    """A peer did not answer, or disagrees about the ring. A reader never sees it: it costs one load.

    ``is_dead``: nothing was heard of it. ``other_ring``: it has another ring.
    """

    code = "PEER_FAILED"

    def __init__(self, peer: str, reason: str, *, is_dead: bool = False, other_ring: bool = False) -> None:
        self.peer = peer
        self.reason = reason
        self.is_dead = is_dead
        self.other_ring = other_ring
        super().__init__(f"peer {peer}: {reason}")


class MembershipUnavailable(BiddingError, ConnectionError):
    """The service on which the nodes agree about membership cannot be reached now. The node goes on without peers."""

    code = "MEMBERSHIP_UNAVAILABLE"
