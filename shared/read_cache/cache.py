"""The groups of one process, in one store with one bound on loads. :mod:`shared.read_cache.opening` makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from shared.read_cache.groups.group import Group, GroupLimits, Load, LoadMany, MayKeep, Shelf, always
from shared.read_cache.remote import Heard
from shared.read_cache.store.base import Store

if TYPE_CHECKING:
    from shared.read_cache.cluster import Cluster

GROUPS_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """A group as it is asked for: a namespace of keys with one origin.

    Attributes:
        name: the same in all processes of a cluster.
        load: the question to the origin; None says that there is no such thing.
        limits: how long and how much is kept.
        may_keep: False for a key whose change is known already and may not have reached the origin yet. What is loaded
            then is told, and not kept.
        load_many: several keys in one question, for ``get_many``; None where the origin tells of one at a time.
        counts: False where values are kept for moments only: most gets of such a group miss, so they are not among
            those of which people expect a hit rate. All else that happens in it is counted.
    """

    name: str
    load: Load
    limits: GroupLimits = field(default_factory=GroupLimits)
    may_keep: MayKeep = always
    load_many: LoadMany | None = None
    counts: bool = True


class ReadCache(Mapping[str, Group]):
    """Groups by name, in one store with one bound on loads. Made by :mod:`shared.read_cache.opening`."""

    def __init__(self, specs: Sequence[GroupSpec], shelf: Shelf, *, flights_max: int) -> None:
        """
        Raises:
            ValueError: a name cannot name a group or is used twice, or there are more than ``GROUPS_MAX``.
        """
        if len({spec.name for spec in specs}) != len(specs) or len(specs) > GROUPS_MAX:
            raise ValueError(f"a cache has at most {GROUPS_MAX} groups, each with a name of its own")
        self._shelf = shelf
        self._groups = {
            spec.name: Group(
                spec.name,
                spec.load,
                spec.limits,
                shelf,
                flights_max=flights_max,
                may_keep=spec.may_keep,
                load_many=spec.load_many,
                counts=spec.counts,
            )
            for spec in specs
        }
        self.stats = shelf.stats
        self.cluster: Cluster | None = None
        """The peers, in the mode ``cluster``."""

    def attach(self, cluster: Cluster) -> None:
        """From now on keys are shared with other nodes."""
        self.cluster = self._shelf.remote = cluster

    @override
    def __getitem__(self, name: str) -> Group:
        return self._groups[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    @override
    def __len__(self) -> int:
        return len(self._groups)

    def _stores(self) -> Iterator[Store]:
        if self._shelf.store is not None:
            yield self._shelf.store
        if self._shelf.mirrors is not None:
            yield self._shelf.mirrors.store

    @property
    def bytes_used(self) -> int:
        """The bytes of the store and the mirrors, as they count against the bound."""
        return sum(store.bytes_used for store in self._stores())

    @property
    def bytes_live(self) -> int:
        """An upper bound of the bytes that may still be served, without those from before the last :meth:`reset`."""
        return min(self.bytes_used, self._shelf.put_bytes)

    @property
    def bytes_max(self) -> int:
        """The bound on the bytes of the store and the mirrors."""
        return sum(store.bytes_max for store in self._stores())

    @property
    def entries(self) -> int:
        """Entries that are kept, among them expired ones for which nobody has asked since."""
        return sum(map(len, self._stores()))

    @property
    def evictions(self) -> int:
        """Entries that had to go for others since the start."""
        return sum(store.evictions for store in self._stores())

    @property
    def waiting(self) -> int:
        """Questions that wait for the origin now."""
        return self._shelf.gate.waiting

    @property
    def is_keeping(self) -> bool:
        """Whether values are kept: not between :meth:`suspend` and :meth:`resume`."""
        return self._shelf.keeping

    @property
    def is_telling(self) -> bool:
        """Whether what is kept is told: not between :meth:`withhold` and :meth:`tell_again`."""
        return self._shelf.telling

    def bounded(self) -> AbstractAsyncContextManager[None]:
        """Inside, the origin may be asked past the cache: such questions have the bound of those that fill it.

        Raises:
            Overloaded: the origin has more to do than it can.
        """
        return self._shelf.gate.passed()

    def reset(self) -> None:
        """Forget everything that is kept in this process, in all groups, in constant time. Its memory counts as free at
        once, and is given up as new values come."""
        self._shelf.put_bytes = 0
        for group in self._groups.values():
            group.forget_all()

    def before_telling(self, check: Callable[[], None]) -> None:
        """``check`` is called before a peer is told what is kept; it may find out that nothing may be told."""
        self._shelf.before_telling = check

    def hear(self, heard: Callable[[], Heard], *, needed: Callable[[], Heard]) -> None:
        """Tell peers how far this process has heard of changes, and take over from those only that have heard what is
        needed here. To be set before the cache keeps anything.

        A value from a peer that has heard at least what is needed here reflects every change that this process knows
        of. Of later changes this process will hear, and then forgets the value that it is taking over.
        """
        self._shelf.heard, self._shelf.needed = heard, needed

    @property
    def heard(self) -> Heard:
        """How far this process has heard of changes."""
        return self._shelf.heard()

    def suspend(self) -> None:
        """From now on nothing is kept, and nothing that is kept is told: the follower of the changes may miss some.
        Gets at the same moment still share a question."""
        self._shelf.keeping = False
        self.reset()

    def resume(self) -> None:
        """Keep again, beginning with nothing: what is being loaded may have missed a change."""
        self.reset()
        self._shelf.keeping = True

    def withhold(self) -> None:
        """From now on nothing that is kept is told: perhaps all of it is wrong. It stays, and is forgotten as ever.
        What is loaded is told, and kept."""
        self._shelf.telling = False

    def tell_again(self) -> None:
        """What is kept is known to be right. Otherwise :meth:`reset` comes before this."""
        self._shelf.telling = True

    async def close(self) -> None:
        """Give up what is being loaded; whoever waits gets ``Overloaded``."""
        for group in self._groups.values():
            await group.close()
