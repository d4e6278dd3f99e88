"""Secrets of the platform itself, each of which may be a pair while one secret takes the place of the other (decision
0074).

Of a secret ``X`` there are three settings: ``X`` itself; ``X_ALSO``, which it replaces and which is believed beside it;
and ``X_SINCE``, the instant at which ``X`` takes over. Until then ``X_ALSO`` is what signs, so that processes which
know both and processes which know the old one alone believe each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations
from typing import Annotated, Final

from pydantic import AfterValidator, SecretStr

from shared.settings import EnvironmentSettings
from shared.timefmt import from_rfc3339

SECRET_BYTES_MIN: Final = 32
"""The length of the hash (RFC 7518, section 3.2): shorter secrets can be found by trying."""

ALSO: Final = "_ALSO"
SINCE: Final = "_SINCE"
"""What the names of a secret's other two settings end with."""

ALSO_USED: Final = "secret_also_used_total"
"""The metric of :func:`totals_of`, behind the service's prefix."""
ALSO_USED_TEXT: Final = "How often the secret that is being replaced was still needed"

_GOOD: Final = "`openssl rand -hex 32` makes a good one"


def _long_enough(secret: SecretStr) -> SecretStr:
    """Raises ValueError where a secret is so short that it can be found by trying."""
    if 0 < len(secret.get_secret_value().encode()) < SECRET_BYTES_MIN:
        raise ValueError(f"must have at least {SECRET_BYTES_MIN} bytes; {_GOOD}")
    return secret


LongSecret = Annotated[SecretStr, AfterValidator(_long_enough)]
"""A setting that is a secret of at least 32 bytes, or empty."""

_SUCH_AS: Final = "such as 2030-01-31T18:00:00Z"


class SecretPair:
    """One secret, or two while one takes the place of the other.

    Attributes:
        name: of the setting, in capitals.
        secret: the one that lasts; empty where there is none.
        also: the one that is being replaced; empty for none.
        since_us: Unix time in microseconds at which ``secret`` takes over from ``also``; 0 where there is one alone.
        also_used: how often this process needed ``also``.
    """

    __slots__ = ("also", "also_used", "name", "secret", "since_us")

    def __init__(self, name: str, secret: str, also: str = "", since_us: int = 0) -> None:
        self.name = name
        self.secret = secret
        self.also = also
        self.since_us = since_us
        self.also_used = 0

    def __bool__(self) -> bool:
        return bool(self.secret)

    def at(self, instant_us: int) -> str:
        """The one in use at this instant, in microseconds of Unix time."""
        return self.secret if instant_us >= self.since_us else self.also

    def now(self, now_s: Callable[[], float] = time.time) -> str:
        """The one in use now, with which to sign."""
        return self.at(int(now_s() * 1_000_000))

    def believed(self) -> Iterator[str]:
        """The secrets that are believed, the lasting one first; none where there is no secret."""
        if self.secret:
            yield self.secret
        if self.also:
            yield self.also

    def note(self, secret: str) -> None:
        """Count that this secret was needed to believe something."""
        if self.also and secret == self.also:
            self.also_used += 1


def pair_of(settings: EnvironmentSettings, name: str, *, bytes_min: int = SECRET_BYTES_MIN) -> SecretPair:
    """The secret of a setting, and the one that it replaces.

    Args:
        settings: with the fields ``<name>``, ``<name>_also`` and ``<name>_since``.
        name: in small letters.
        bytes_min: how long each must be.

    Raises:
        ValueError: as of :func:`checked_pair`.
    """
    secret, also = getattr(settings, name), getattr(settings, f"{name}_also")
    since = getattr(settings, f"{name}_since")
    return checked_pair(name.upper(), secret.get_secret_value(), also.get_secret_value(), since, bytes_min=bytes_min)


def checked_pair(
    setting: str, secret: str, also: str = "", since: str = "", *, bytes_min: int = SECRET_BYTES_MIN
) -> SecretPair:
    """The pair that these three settings say, of which an empty one is missing.

    Raises:
        ValueError: a secret is too short, both are the same, or one of the three is missing. The text names the
            setting and shows no secret.
    """
    for each, value in ((setting, secret), (setting + ALSO, also)):
        if value and len(value.encode()) < bytes_min:
            raise ValueError(f"{each} must have at least {bytes_min} bytes; {_GOOD}")
    if not also and not since:
        return SecretPair(setting, secret)
    if not secret:
        given = ALSO if also else SINCE
        raise ValueError(f"{setting}{given} is set, and {setting}, the secret that lasts, is not")
    if not also or not since:
        raise ValueError(
            f"{setting}{ALSO} and {setting}{SINCE} go together: the secret that is being replaced, and the instant "
            f"at which {setting} takes over, {_SUCH_AS}"
        )
    if also == secret:
        raise ValueError(f"{setting} and {setting}{ALSO} must differ: the second one is being replaced by the first")
    try:
        since_us = from_rfc3339(since)
    except ValueError as error:
        raise ValueError(f"{setting}{SINCE}: {error}, {_SUCH_AS}") from None
    return SecretPair(setting, secret, also, since_us)


def check_distinct(values: Mapping[str, str]) -> None:
    """Check that no two secrets are equal: a party that knows one secret must not get what another one protects.

    Args:
        values: secrets by their settings; empty ones are not set.

    Raises:
        ValueError: two settings have the same.
    """
    for (one, value), (other, same) in combinations(values.items(), 2):
        if value and value == same:
            raise ValueError(f"{one} and {other} must differ")


def totals_of(pairs: Iterable[SecretPair]) -> dict[str, float]:
    """How often each secret that is being replaced was needed, by its setting. Secrets that stand alone are absent."""
    return {pair.name: float(pair.also_used) for pair in pairs if pair.also}
