"""What keeps an item off a watch list."""

from __future__ import annotations

from shared.domain.errors import BiddingError


class IdentityRequired(BiddingError):
    """Nobody signs in, so nothing belongs to anybody."""

    code = "IDENTITY_REQUIRED"

    def __init__(self) -> None:
        super().__init__("nobody signs in here: AUTH_MODE is open, so lists are kept by browsers alone")


class WatchListFull(BiddingError):
    """The list has as many items as a list may have; nothing was added."""

    code = "WATCH_LIST_FULL"

    def __init__(self, most: int) -> None:
        self.most = most
        super().__init__(f"your watch list has {most} items, which is the most; take some off first")


class WatchListsFull(BiddingError):
    """All lists together have as many items as they may have; nothing was added."""

    code = "WATCH_LISTS_FULL"

    def __init__(self) -> None:
        super().__init__(
            "the house has no room for more watched items; it comes back as auctions end. Ask the house to make some"
        )
