"""A bidder's spending limit across items: the account in one place, and a lease of it in each shard. Pure.

The limit bounds, in one currency, the sum of the maxima with which the bidder leads. A script sees one shard. So each
shard has a lease: a part of the limit that bids there may use without asking. The leases of all shards together are
never more than the limit, and what is used in a shard is never more than its lease, but for what was led with before
the limit, and for what a loss of decided bids brings back. A void, which may let somebody lead, needs the lease first.

In each shard the hash ``{s07}:credit`` has for a bidder and a currency

    u:<user id>|<currency>   what is used: the sum of the maxima with which the bidder leads items of the shard
    l:<user id>|<currency>   ``<lease>|<epoch>|<entry>|<n>|<admission>``: the lease, empty for any amount; the
                             generation of the account; how often the lease has changed in it from outside; and the
                             shard's admission when it changed last
    c:<user id>|<currency>   a mark: what the bidder led with when the shard was told of the limit is not counted yet;
                             until then the shard reports nothing

In the bidder's home the hash ``{s40}:account:<user id>|<currency>`` has ``limit`` (empty for none), ``generation``
(``<epoch>|<entry>`` of the ruling that set it), ``state``, ``counting`` (the number of its last counting in this
generation: only reports that were collected for that one open it), ``leased`` (the sum), and under each shard's name
``<lease>|<epoch of the shard>|<n>|<last raise>``, as far as the account knows. It never knows less than the shard has:

1. To raise a lease, the account first counts the raise as given and numbers it. The shard takes raise ``n`` once, and
   only directly after ``n - 1``.
2. To lower it, the shard first lowers it. The account learns of it with the next question, which says the shard's ``n``
   and lease. Where that ``n`` is not below its own, no raise is on its way, so what the shard says bounds what it has.
3. Where the shard uses more than its lease, because the bidder led with more before the limit, the shard reports what
   is used, and keeps its lease.
4. Whenever another copy of a shard is admitted (after a failover or a restart), the shard gets another admission.
   A lease of a former one is used no further. The shard lowers it before it asks for more, and numbers it far above
   what the former copy can have given out. An account that was opened in a former admission of its home gives nothing
   before it has asked all shards.

So nothing is lost and nothing is given twice, whichever process dies between two steps. An item's field ``charged``
says for whom the item is counted, and how much. It changes in the same step as the item.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from shared.redis_layout.outbox import EntryId

COUNTING: Final = "counting"
"""The state of an account that gives no leases: what its bidder leads with is being counted."""
OPEN: Final = "open"

USED_MAX: Final = 2**56
"""The most that is counted as used in one shard; far above every limit. A lead that would pass it is counted as
nothing, so that Redis, and the sum over all shards, can hold what is counted. ``charge`` in the gateway's
``lib/item.lua`` has it too."""

State = Literal["counting", "open"]


class Lease(NamedTuple):
    """A shard's lease; ``granted`` None for any amount. ``generation`` as it stands, ``<epoch>|<entry>``.
    ``admission``: of the shard when the lease was changed last; if the shard has another one now, no more of the lease
    may be used than is used already."""

    granted: int | None
    generation: str
    n: int
    admission: str = ""

    def encode(self) -> str:
        """The value of the field ``l:…``."""
        return f"{'' if self.granted is None else self.granted}|{self.generation}|{self.n}|{self.admission}"

    @classmethod
    def decode(cls, value: bytes) -> Lease:
        """Read the value of the field."""
        granted, epoch, entry, n, *admission = value.decode().split("|")
        return cls(int(granted) if granted else None, f"{epoch}|{entry}", int(n), *admission)


def name_of(user_id: str, currency: str) -> str:
    """The name of an account in fields of hashes."""
    return f"{user_id}|{currency}"


def account_of(name: str) -> tuple[str, str]:
    """The bidder and the currency of an account with this name."""
    user_id, _, currency = name.partition("|")
    return user_id, currency


def entry_of_generation(generation: str) -> EntryId:
    """The entry of the bidder's home that gave an account this generation."""
    epoch, n = generation.split("|")
    return EntryId(int(epoch), int(n))


def number_of_record(record: bytes) -> int:
    """How often a shard's lease has changed, as far as the account's field of the shard tells."""
    return int(record.split(b"|")[2])
