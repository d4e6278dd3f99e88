"""The keys with which tokens are verified: fixed ones, or those of an issuer who changes them now and then.

``find`` never waits. Keys are fetched in the background, by one task, in a thread: whatever tokens come, there is one
fetch in flight and at most one in ``FETCH_EVERY_S``.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from shared.identity.errors import KeysAway, Unauthenticated
from shared.identity.fetch import FetchFailed
from shared.identity.jwks import ALGORITHMS, JwksInvalid, KeySet, published_keys
from shared.secret_pairs import SecretPair

logger = logging.getLogger(__name__)

FETCH_EVERY_S: Final = 10.0
"""The least time between two fetches. An unknown key is looked for once, and then counts as unknown for that time."""
REFRESH_S: Final = 300.0
"""The time between two fetches that no token asks for: a key that was withdrawn is not believed for longer."""
KEPT_S: Final = 86_400.0
"""How long keys are believed while the issuer cannot be reached."""

UNKNOWN_KEY: Final = "the token is signed with a key that is not known here; get a new one"


class Keys(Protocol):
    """The keys among which a token's key is found.

    ``version`` changes whenever the keys do: then what was found out with the older ones must be forgotten.
    """

    @property
    def version(self) -> int: ...

    def find(self, kid: str | None, algorithm: str) -> Sequence[Any]:
        """The keys of this id, for this algorithm alone: one, or two of which either may have signed.

        Raises:
            Unauthenticated: there is none.
            KeysAway: whether there is one cannot be told now.
        """
        ...

    def note(self, key: Any) -> None:
        """Called with the key that signed a token which is believed."""
        ...


class Secret:
    """The secret for HS256, or two. Whoever has one can sign for anybody: for small set-ups, whose issuer is their
    own."""

    version: int = 0

    def __init__(self, secrets: SecretPair) -> None:
        self._secrets = secrets

    def find(self, kid: str | None, algorithm: str) -> Sequence[Any]:
        """See :class:`Keys`; the id does not matter: an HMAC costs next to nothing, so both are tried."""
        if algorithm != "HS256":
            raise Unauthenticated("the token must be signed with HS256")
        return tuple(self._secrets.believed())

    def note(self, key: Any) -> None:
        """See :class:`Keys`."""
        self._secrets.note(key)


class FixedKeys:
    """Keys that stay as long as the process."""

    version: int = 0

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    def find(self, kid: str | None, algorithm: str) -> Sequence[Any]:
        """See :class:`Keys`."""
        key = self._keys.find(kid, algorithm)
        if key is None:
            raise Unauthenticated(UNKNOWN_KEY)
        return (key,)

    def note(self, key: Any) -> None:
        """See :class:`Keys`: there is no choice."""


class FetchedKeys:
    """Keys of a file or an address, fetched again now and then, and when a token names one that is not among them."""

    def __init__(
        self,
        load: Callable[[], bytes],
        *,
        every_s: float = FETCH_EVERY_S,
        refresh_s: float = REFRESH_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``load``: called in a thread; it must be bounded in time. Raises FetchFailed or OSError."""
        self._load = load
        self._every_s = every_s
        self._refresh_s = refresh_s
        self._now_s = now_s
        self._keys = KeySet({})
        self._fetched_s = -math.inf
        self._wanted = asyncio.Event()
        self._version = 0
        self.withdrawn: set[str] = set()
        """Names of keys that were believed and are no longer, for who tells others of it, and takes them from here."""
        self.fetches_total = 0
        self.trouble: str | None = "the keys of tokens are not fetched yet"
        """Why the latest fetch failed, or what is wrong with the keys; None where all is well."""

    @property
    def can_verify(self) -> bool:
        """Whether keys were fetched that are not too old to be believed."""
        return self._now_s() - self._fetched_s <= KEPT_S

    @property
    def version(self) -> int:
        """See :class:`Keys`. Keys that are too old are another version, in which nothing is believed."""
        return self._version if self.can_verify else -1

    def find(self, kid: str | None, algorithm: str) -> Sequence[Any]:
        """See :class:`Keys`."""
        age_s = self._now_s() - self._fetched_s
        if not self.can_verify:
            self._wanted.set()
            raise KeysAway("tokens cannot be checked now; try again", retry_after_s=5)
        key = self._keys.find(kid, algorithm)
        if key is not None:
            return (key,)
        if algorithm not in ALGORITHMS or age_s < self._every_s:
            # The refusal is not lasting: the key may be among those that are fetched next.
            raise Unauthenticated(UNKNOWN_KEY, is_lasting=False)
        self._wanted.set()
        raise KeysAway("the key of this token is looked for; try again", retry_after_s=1)

    def note(self, key: Any) -> None:
        """See :class:`Keys`: there is no choice."""

    async def run(self) -> None:
        """Fetch now, and then whenever it is time or a key is looked for; until cancelled."""
        while True:
            await self._fetch()
            await asyncio.sleep(self._every_s)
            if self.trouble is None:
                try:
                    async with asyncio.timeout(self._refresh_s):
                        await self._wanted.wait()
                except TimeoutError:
                    logger.debug("the keys of tokens are fetched again")
            self._wanted.clear()

    async def _fetch(self) -> None:
        self.fetches_total += 1
        try:
            keys, trouble = published_keys(await asyncio.to_thread(self._load))
        except (FetchFailed, JwksInvalid, OSError) as error:
            self.trouble = f"the keys of tokens cannot be fetched: {error}"
            logger.warning("%s", self.trouble)
            return
        # A key that is not published any more is withdrawn, also where none is left.
        if keys != self._keys:
            self.withdrawn |= self._keys.names()
            self.withdrawn -= keys.names()
            self._keys = keys
            self._version += 1
        self._fetched_s = self._now_s()
        self.trouble = None if trouble is None else f"the keys of tokens {trouble}"
        if trouble is not None:
            logger.warning("%s", self.trouble)
