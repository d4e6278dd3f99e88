"""What viewers were shown: everything once, in order, up to the end, or told where that could not be."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from tests.faults.judging.records import Frame, Records, Viewer
from tests.faults.judging.replay import Replay
from tests.faults.judging.wording import repeated, report


def viewer_violations(records: Records, replay: Replay) -> Iterator[str]:
    """The violations that any viewer has seen."""
    prices = _prices(records)
    struck = sorted(event.seq for event in records.events if event.type == "voided")
    for viewer in records.viewers:
        yield from _never_goes_back(viewer, struck)
        yield from _misses_nothing(viewer)
        yield from _came_back_rightly(viewer)
        events = [frame.version for frames in viewer.connections for frame in frames if frame.is_event]
        yield from report(f"events were shown to {viewer.name} twice", repeated(events))
        yield from _shown_what_was_decided(viewer, prices, replay)
        yield from _shown_the_end(viewer, records)


def _prices(records: Records) -> dict[int, int]:
    """By seq, the price after that event, as stored; for those whose content is known."""
    prices = {row.seq: row.amount for row in records.rows}
    prices.update({event.seq: event.body["current_bid"] for event in records.events if event.body})
    return prices


def _states(frames: Sequence[Frame]) -> list[Frame]:
    return [frame for frame in frames if not frame.is_resumed]


def _never_goes_back(viewer: Viewer, struck: Sequence[int]) -> Iterator[str]:
    """Nothing goes back, from one connection to the next either. Only a void lowers a price."""
    shown = [
        (number, frame) for number, frames in enumerate(viewer.connections) for frame in frames if not frame.is_resumed
    ]
    for (_, earlier), (number, later) in itertools.pairwise(shown):
        assert earlier.price is not None
        assert later.price is not None
        fell = later.price < earlier.price and not any(earlier.seq < seq <= later.seq for seq in struck)
        if later.version < earlier.version or later.seq < earlier.seq or fell:
            yield f"{viewer.name} went back from {earlier.version} to {later.version} on connection {number}"


def _misses_nothing(viewer: Viewer) -> Iterator[str]:
    """An event is the next after what was shown before it on this connection."""
    for frames in viewer.connections:
        for earlier, later in itertools.pairwise(_states(frames)):
            if later.is_event and later.seq > earlier.seq + 1:
                yield f"{viewer.name} was not shown what is between {earlier.version} and {later.version}"
            elif later.type == "snapshot" and later.seq > earlier.seq and later.recovered is not False:
                yield f"{viewer.name} was not told that nothing is shown between {earlier.version} and {later.version}"


def _came_back_rightly(viewer: Viewer) -> Iterator[str]:
    """A first connection begins with a snapshot; a later one with what was missed, or it says that it cannot."""
    last: Frame | None = None
    for number, frames in enumerate(viewer.connections):
        if not frames:
            continue
        named = f"{viewer.name}, connection {number}"
        if last is None:
            if frames[0].is_event or frames[0].is_resumed:
                yield f"{named}: begins without a snapshot, with {frames[0].version}"
        else:
            yield from _resumes(named, last, frames)
        states = _states(frames)
        last = states[-1] if states else last


def _resumes(named: str, last: Frame, frames: Sequence[Frame]) -> Iterator[str]:
    first = frames[0]
    if first.is_resumed:
        yield from _replays(named, last, first, frames[1:])
    elif first.is_event:
        if first.version != (last.epoch, last.seq + 1):
            yield f"{named}: {first.version} is not the next after {last.version}: events are skipped at the resumption"
    elif first.version < last.version:
        yield f"{named}: begins with a snapshot of {first.version}, older than {last.version}"
    elif first.version != last.version and first.recovered is not False:
        yield f"{named}: begins with {first.version} and does not say that it skips what follows {last.version}"


def _replays(named: str, last: Frame, resumed: Frame, rest: Sequence[Frame]) -> Iterator[str]:
    """Exactly so many events as were promised, each the next; fewer only where the connection ended in between."""
    if resumed.since is not None and resumed.since != last.version:
        yield f"{named}: resumes after {resumed.since}, and {last.version} was shown"
        return
    if resumed.version < last.version:
        yield f"{named}: resumes up to {resumed.version}, and {last.version} was shown"
        return
    promised = rest[: resumed.replayed]
    versions = [frame.version for frame in promised if frame.is_event]
    wanted = [(last.epoch, seq) for seq in range(last.seq + 1, last.seq + 1 + len(promised))]
    if versions != wanted:
        yield f"{named}: {versions[:3]} follow, and {resumed.replayed} events after {last.version} were promised"
    elif resumed.version != (last.epoch, last.seq + resumed.replayed):
        yield f"{named}: {resumed.replayed} events after {last.version} do not lead to {resumed.version}"
    elif len(rest) > resumed.replayed:
        live = rest[resumed.replayed]
        if live.is_event and live.seq != resumed.seq + 1:
            yield f"{named}: was not shown what is between {resumed.version} and {live.version}"


def _shown_what_was_decided(viewer: Viewer, prices: dict[int, int], replay: Replay) -> Iterator[str]:
    wrong = set()
    for frames in viewer.connections:
        for frame in _states(frames):
            price = prices.get(frame.seq)
            public = replay.public.get(frame.seq)
            if price is not None and price != frame.price:
                wrong.add(f"{frame.version} at {frame.price} where it was {price}")
            elif public is not None and frame.public is not None and frame.public != public:
                wrong.add(f"{frame.version}: {frame.public} where it was {public}")
    yield from report(f"frames of {viewer.name} show what is not in PostgreSQL", wrong)


def _shown_the_end(viewer: Viewer, records: Records) -> Iterator[str]:
    states = [frame for frames in viewer.connections for frame in _states(frames)]
    if states and records.redis_seq is not None and states[-1].seq < records.redis_seq:
        yield f"{viewer.name} was shown nothing after {states[-1].version}, and the item is at {records.redis_seq}"


def hidden_from(viewer: Viewer) -> set[int]:
    """The seqs that passed without being shown, and without a word about it."""
    hidden: set[int] = set()
    last: Frame | None = None
    for frames in viewer.connections:
        for frame in _states(frames):
            if last is not None and (frame.is_event or (frame.type == "snapshot" and frame.recovered is not False)):
                hidden.update(range(last.seq + 1, frame.seq))
                if not frame.is_event:
                    hidden.add(frame.seq)
            last = frame
    return hidden
