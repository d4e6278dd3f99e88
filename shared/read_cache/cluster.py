"""Membership and peers put together: what :class:`shared.read_cache.groups.group.Group` uses in the mode ``cluster``.

Where a peer is dead, the key's next node on the ring is asked, and not the origin at once. All readers that notice the
death ask the same next node, which loads once. So the death of a node during a thousand gets costs one more load, and
not one per reader. A breaker remembers that the peer is dead, until it has left the ring.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from typing_extensions import override

from shared.read_cache.errors import PeerFailed
from shared.read_cache.membership.view import Membership, View
from shared.read_cache.peers.budget import RetryBudget
from shared.read_cache.peers.link import Kind, Link
from shared.read_cache.peers.wire import Tls
from shared.read_cache.remote import Fetched, OnFetched, Remote
from shared.read_cache.ring import Ring
from shared.read_cache.stats import Stats

UNKNOWN: Final = "unknown"
"""Stands for the nodes that were not told to forget, where this process has never seen a ring."""
_RETIRE_S: Final = 1.0
_FORGET_AGAIN_S: Final = 0.05
_RENEW_MAX_S: Final = 1.0
"""How long a get waits for the newest ring, where the node that it asked has another ring."""
_RENEW_SOONEST_S: Final = 0.2
"""The least time between two questions for the newest ring: if the other node is the one behind, asking does not help.
"""


class _Behind(NamedTuple):
    """A get that a node refused because it has another ring."""

    asked: View | None
    """The view under which the get was asked."""
    refusal: PeerFailed
    group: str
    key: str
    on_fetched: OnFetched


class Cluster(Remote):
    """The peers of this process."""

    def __init__(
        self,
        membership: Membership,
        stats: Stats,
        *,
        on_lapse: Callable[[], None],
        timeout_s: float = 0.25,
        tls: Tls | None = None,
    ) -> None:
        """
        Args:
            on_lapse: drops all that is kept: this process may have missed removals.
            timeout_s: silence of a peer after which it is taken for dead.
        """
        self._membership = membership
        self._stats = stats
        self._on_lapse = on_lapse
        self._timeout_s = timeout_s
        self._tls = tls
        self._lapses = membership.lapses
        self._view: View | None = None
        self._last_ring: Ring | None = None
        self._links: dict[str, Link] = {}
        self._kinds: dict[str, Kind] = {}
        self._kinds_of_kept: dict[str, Kind] = {}
        """By group, under the present view: the kinds of gets, and of gets that ask only for what is kept."""
        self._budget = RetryBudget()
        self._retiring: set[asyncio.Task[None]] = set()
        self._behind: list[_Behind] = []
        self._renewing: asyncio.Task[None] | None = None
        self._renewed_s = 0.0

    # What is known

    def view(self) -> View | None:
        """The ring that this process relies on now."""
        view = self._membership.current()
        if view is not self._view:
            self._change(view)
        return view

    def _change(self, view: View | None) -> None:
        self._view = view
        self._kinds.clear()
        self._kinds_of_kept.clear()
        if self._membership.lapses != self._lapses:
            self._lapses = self._membership.lapses
            self._stats.lapses += 1
            self._on_lapse()
        if view is None or view.ring is self._last_ring:
            return
        self._last_ring = view.ring
        for name, link in list(self._links.items()):
            if view.ring.node(name) != link.node:
                del self._links[name]
                task = asyncio.get_running_loop().create_task(_retire(link))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)

    def link(self, name: str) -> Link | None:
        """The stream to a node of the ring; it is there until the ring changes."""
        link = self._links.get(name)
        if link is None and self._last_ring is not None and (node := self._last_ring.node(name)) is not None:
            link = self._links[name] = Link(
                node, timeout_s=self._timeout_s, tls=self._tls, on_other_ring=self._membership.suspect
            )
        return link

    @override
    def is_sure(self) -> bool:
        # The same as view(), without its call: this runs at every get.
        view = self._membership.current()
        if view is not self._view:
            self._change(view)
        return view is not None

    @override
    def owner(self, key: str) -> str | None:
        view = self._view
        if view is None:
            return None
        try:
            name = view.ring.owner(key).name
        except LookupError:
            return None
        if name == view.here:
            return None
        link = self._links.get(name)
        if link is None or link.breaker.is_closed or not link.breaker.is_open(asyncio.get_running_loop().time()):
            return name
        return self._next_owner(view, key, {name})

    def _next_owner(self, view: View, key: str, without: set[str]) -> str | None:
        """The first node on the ring after the given ones that is not known to be dead; None if that is this node, or
        if there is none."""
        now_s = asyncio.get_running_loop().time()
        while (node := view.ring.successor(key, without)) is not None and node.name != view.here:
            link = self._links.get(node.name)
            if link is None or not link.breaker.is_open(now_s):
                return node.name
            without.add(node.name)
        return None

    # Asking

    @override
    def ask(self, owner: str, group: str, key: str, on_fetched: OnFetched, *, kept_only: bool = False) -> None:
        self._budget.attempted()
        view = self._view

        def answered(answer: Fetched | Exception) -> None:
            if isinstance(answer, PeerFailed):
                if answer.other_ring:
                    self._stats.other_ring += 1
                    if not kept_only and self._ask_anew(_Behind(view, answer, group, key, on_fetched)):
                        return
                elif answer.is_dead and not kept_only and self._ask_next(owner, group, key, on_fetched):
                    return
            on_fetched(answer)  # type: ignore[arg-type]

        self._ask(owner, group, key, answered, kept_only)

    def _ask_next(self, dead: str, group: str, key: str, on_fetched: OnFetched) -> bool:
        """Ask the node after a dead one, if that is another one than this and the budget allows it."""
        view = self.view()
        if view is None:
            return False
        name = self._next_owner(view, key, {dead})
        if name is None or not self._budget.take():
            return False
        self._ask(name, group, key, on_fetched, False)
        return True

    def _ask_anew(self, get: _Behind) -> bool:
        """Ask the owner of the key on the newest ring, if that ring is another one than that of the get. All gets that
        wait for the ring share one question, so this needs no budget."""
        view = self.view()
        if view is not None and view is not get.asked:
            self._ask_owner(get)
            return True
        if self._renewing is None:
            loop = asyncio.get_running_loop()
            if loop.time() < self._renewed_s + _RENEW_SOONEST_S:
                return False
            self._renewing = loop.create_task(self._renew(), name="the newest ring")
        self._behind.append(get)
        return True

    async def _renew(self) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RENEW_MAX_S):
                    await self._membership.newest()
        finally:
            self._renewing = None
            self._renewed_s = asyncio.get_running_loop().time()
            behind, self._behind = self._behind, []
            view = self.view()
            for get in behind:
                if view is None or view is get.asked:
                    get.on_fetched(get.refusal)
                else:
                    self._ask_owner(get)

    def _ask_owner(self, get: _Behind) -> None:
        """Ask the owner once: its answer is final."""
        name = self.owner(get.key)
        if name is None:
            get.on_fetched(get.refusal)
        else:
            self._ask(name, get.group, get.key, get.on_fetched, False)

    def _ask(self, name: str, group: str, key: str, on_fetched: OnFetched, kept_only: bool) -> None:
        view, link = self._view, self._links.get(name) or self.link(name)
        if view is None or link is None:
            on_fetched(PeerFailed(name, "is not in the ring"))
            return
        kinds = self._kinds_of_kept if kept_only else self._kinds
        kind = kinds.get(group)
        if kind is None:
            kind = kinds[group] = Kind(view.epoch, view.ring.fingerprint, group, kept_only)
        link.ask(kind, key, on_fetched)

    @override
    async def forget(self, group: str, keys: Sequence[str] | None) -> list[str]:
        # A node that has joined since the last look may have loaded the old value just before the change. One that
        # joins after this look loads what is true by then.
        await self._membership.newest()
        view = self.view()
        ring = view.ring if view is not None else self._last_ring
        if ring is None:
            return [UNKNOWN]
        here = view.here if view is not None else None
        names = [node.name for node in ring.nodes if node.name != here]
        told = await asyncio.gather(*(self._tell(name, group, keys) for name in names))
        return [name for name, done in zip(names, told, strict=True) if not done]

    async def _tell(self, name: str, group: str, keys: Sequence[str] | None) -> bool:
        link = self.link(name)
        if link is None:
            return True
        self._budget.attempted()
        try:
            await link.forget(group, keys)
        except PeerFailed:
            if not self._budget.take():
                return False
            await asyncio.sleep(_FORGET_AGAIN_S)
            try:
                await link.forget(group, keys)
            except PeerFailed:
                return False
        return True

    async def close(self) -> None:
        """Hang up; whoever waits is told that the peer failed."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        links, self._links = list(self._links.values()), {}
        self._last_ring = None
        for task in list(self._retiring):
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await asyncio.gather(*(link.close() for link in links))


async def _retire(link: Link) -> None:
    """What it was asked before it left may still be answered."""
    try:
        await asyncio.sleep(_RETIRE_S)
    finally:
        await link.close()
