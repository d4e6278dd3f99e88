"""Which events a retired item had: its log is in its export alone, and must not be begun anew. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from archival_worker.consume.deliveries import Delivery


class Span(NamedTuple):
    """The events of an item in one epoch: all from the first to the last ``seq``."""

    epoch: int
    first: int
    last: int


Spans = Sequence[Span]
"""The spans of one item, oldest first."""


def spans_of(numbers: Sequence[int]) -> list[Span]:
    """The spans in the flat array that ``retired_items`` has."""
    return [Span(*numbers[at : at + 3]) for at in range(0, len(numbers), 3)]


def flattened(spans: Iterable[Span]) -> list[int]:
    """The inverse of :func:`spans_of`."""
    return [number for span in spans for number in span]


def has_all(spans: Spans, delivery: Delivery) -> bool:
    """Whether nothing in the message is new: the item had all its events, and was where its sealed facts say.

    A fact without an event of its own, a raised maximum, has the number of the event before it, which may be of the
    epoch before.
    """
    assert delivery.entry is not None
    assert delivery.batch is not None
    last = spans[-1]
    return all(
        any(span.epoch == event.epoch and span.first <= event.seq <= span.last for span in spans)
        for event in delivery.batch.events
    ) and all(delivery.entry.epoch <= last.epoch and fact.seq <= last.last for fact in delivery.batch.sealed)
