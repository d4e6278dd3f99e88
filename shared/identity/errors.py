"""Why a caller is sent away."""

from __future__ import annotations

from shared.domain.errors import BiddingError, Unavailable


class Unauthenticated(BiddingError):
    """The caller is not known: there is no token, or one that is not believed.

    ``had_token``: whether there was one. ``is_lasting``: whether the same token is refused as long as the keys stay.
    """

    code = "UNAUTHENTICATED"

    def __init__(self, detail: str, *, had_token: bool = True, is_lasting: bool = True) -> None:
        self.had_token = had_token
        self.is_lasting = is_lasting
        super().__init__(detail)


class Forbidden(BiddingError):
    """The caller is known, and may not do this."""

    code = "FORBIDDEN"


class KeysAway(Unavailable):
    """Whether the token is good cannot be told now: the keys of the issuer are being fetched, or cannot be."""

    def __init__(self, detail: str, *, retry_after_s: int) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)


class TooManyRevocations(Unavailable):
    """The bound on the number of revocations is reached; nothing was changed."""

    code = "TOO_MANY_REVOCATIONS"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"{most} revocations hold already; have the issuer change its key instead", retry_after_s=3_600
        )
