"""What happened in a cache, as plain counters."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Stats:
    """Counts since the start. One per cache, for all of its groups.

    Attributes:
        gets: keys that were asked for here, by readers of this process, in groups of which a hit rate is told.
        hits: answered from what is kept here as the owner (or without a cluster), negative entries among it.
        mirror_hits: answered from a mirror of a foreign key.
        joined: waited for a load or a fetch that was in the air already.
        loads: questions to the origin.
        passing_loads: further questions, for values that are kept for moments only and do not count for the hit rate
            (:class:`shared.read_cache.cache.GroupSpec`, ``counts``).
        load_errors: of both, the ones that failed.
        fetches: keys asked of a peer.
        fetch_failures: of those, the ones that were loaded here instead.
        other_ring: of the failures, those where the rings were not the same.
        served: keys that peers asked for here.
        served_hits: of those, the ones that were kept here.
        shed: questions to the origin that were refused because too much was waiting for it.
        forgotten: loads and fetches whose result was not kept since their key was removed meanwhile.
        too_big: values that were served and not kept, because they are too large.
        lapses: how often everything was dropped because this process was no longer sure to hear of removals.
    """

    gets: int = 0
    hits: int = 0
    mirror_hits: int = 0
    joined: int = 0
    loads: int = 0
    passing_loads: int = 0
    load_errors: int = 0
    fetches: int = 0
    fetch_failures: int = 0
    other_ring: int = 0
    served: int = 0
    served_hits: int = 0
    shed: int = 0
    forgotten: int = 0
    too_big: int = 0
    lapses: int = 0

    def as_dict(self) -> dict[str, int]:
        """The counters by name."""
        return asdict(self)

    @property
    def hit_rate(self) -> float:
        """The share of gets that needed neither the origin nor a peer; 0 before the first."""
        return (self.hits + self.mirror_hits) / self.gets if self.gets else 0.0
