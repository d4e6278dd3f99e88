"""What nodes say of who has which shard, and which of them is right where they differ. Pure.

Each primary has an epoch, a number that no two share for long: one that takes slots over, by a failover or a move, gets
a higher one. So of two claims to a slot the one with the higher epoch is newer; nodes decide by the same rule. A node
that is cut off from the others, or has slept, names those that had the slots before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from shared.clients.cluster.addresses import Address
from shared.clients.cluster.slots import SLOTS

_UNKNOWN_HOSTS: Final = ("", "?")


class Claim(NamedTuple):
    """A statement that a node has a shard. ``epoch``: of that node. ``node``: its id."""

    epoch: int
    node: str
    address: Address


@dataclass(frozen=True, slots=True)
class View:
    """What one node says.

    Attributes:
        node: the id of the one that says it.
        epoch: the highest that it knows of.
        primaries: all nodes that have slots, by id, as far as it knows: also slots that we do not use.
        claims: by shard; shards of slots that nobody has are left out.
    """

    node: str
    epoch: int
    primaries: Mapping[str, Address]
    claims: Mapping[str, Claim]

    @classmethod
    def read(cls, slots: Iterable[Any], nodes: str | bytes, asked: Address) -> View:
        """What a node says, out of its answers to ``CLUSTER SLOTS``, which has the addresses for clients, and to
        ``CLUSTER NODES``, which has the epochs.

        Args:
            asked: the node that answered; it is meant where an answer names no host.
        """
        epochs: dict[str, int] = {}
        node = ""
        for line in _text(nodes).splitlines():
            words = line.split()
            if len(words) >= 7:
                epochs[words[0]] = int(words[6])
                if "myself" in words[2].split(","):
                    node = words[0]
        primaries: dict[str, Address] = {}
        claims: dict[str, Claim] = {}
        for first, last, primary, *_ in slots:
            host, owner = _text(primary[0]), _text(primary[2])
            address = Address(asked.host if host in _UNKNOWN_HOSTS else host, int(primary[1]))
            primaries[owner] = address
            for shard, slot in SLOTS.items():
                if first <= slot <= last:
                    claims[shard] = Claim(epochs.get(owner, 0), owner, address)
        return cls(node, max(epochs.values(), default=0), primaries, claims)


def newest(views: Sequence[View]) -> View:
    """The one that knows of the highest epoch."""
    return max(views, key=lambda view: view.epoch)


def are_majority(views: Sequence[View]) -> bool:
    """Whether more than half of the primaries have said something. Less than half of them cannot know whether the
    others have gone on without them."""
    if not views:
        return False
    primaries = newest(views).primaries
    return 2 * len(primaries.keys() & {view.node for view in views}) > len(primaries)


def agreed(views: Sequence[View], before: Mapping[str, Claim]) -> dict[str, Claim]:
    """Who has which shard, by all that was said.

    A claim for a node counts for nothing where that node itself says that it does not have the shard. Of the others the
    highest epoch counts.

    Args:
        before: what was agreed before. What less than half of the primaries say is not believed where it is older.
    """
    of_node = {view.node: view for view in views}
    is_sure = are_majority(views)
    found: dict[str, Claim] = {}
    for shard in SLOTS:
        said = Counter(
            claim
            for view in views
            if (claim := view.claims.get(shard)) is not None and not _denied(shard, claim.node, of_node.get(claim.node))
        )
        best = max(said, key=lambda claim: (claim.epoch, said[claim]), default=None)
        old = before.get(shard)
        if not is_sure and old is not None and (best is None or best.epoch < old.epoch):
            best = old
        if best is not None:
            found[shard] = best
    return found


def _denied(shard: str, node: str, own: View | None) -> bool:
    """Whether the node has said that it does not have the shard."""
    if own is None:
        return False
    claim = own.claims.get(shard)
    return claim is None or claim.node != node


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")
