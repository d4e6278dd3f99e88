"""A hub whose viewers are names, and its effects in a form for assertions."""

from __future__ import annotations

from collections.abc import Sequence

from broadcast_service.core.effects import Effect, Load, NotFound, Send, Wake
from broadcast_service.core.feed import ItemFeed
from broadcast_service.core.hub import Hub
from tests.unit.broadcast_service.builders import shown

Viewer = str


def new_hub(*, open_catalogue: bool = False, items_max: int = 10, ring: int = 32, rate_max: float = 0) -> Hub[Viewer]:
    hub: Hub[Viewer] = Hub(
        open_catalogue=open_catalogue,
        items_per_viewer_max=items_max,
        rate_max=rate_max,
        make_feed=lambda item_id: ItemFeed(item_id, ring_events_max=ring),
    )
    hub.stream_up()
    return hub


def only_sends(effects: Sequence[Effect[Viewer]]) -> list[Send[Viewer]]:
    """The sends; fails if a load or a wake-up is asked for, or an item is not found."""
    assert not any(isinstance(effect, Load | NotFound | Wake) for effect in effects), effects
    return [effect for effect in effects if isinstance(effect, Send)]


def sends(effects: Sequence[Effect[Viewer]]) -> list[tuple[list[tuple[str, int]], set[Viewer]]]:
    """Who is sent what, as types and seqs."""
    return [(shown(send.frames), set(send.viewers)) for send in only_sends(effects)]
