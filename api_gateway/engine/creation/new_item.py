"""What a seller asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from api_gateway.engine.item_scripts import OpenResult
from shared.domain.auction import Terms, opening_state
from shared.domain.errors import TermsInvalid
from shared.domain.increments import encode_steps
from shared.redis_layout.item_hash import ItemState


def end_is_over() -> TermsInvalid:
    """The error for an end that is not in the future."""
    return TermsInvalid("end_time", "must be in the future and after start_time")


@dataclass(frozen=True, slots=True)
class NewItem:
    """What a seller asks for. ``start_us`` None means now; with ``length_us`` the end is counted from the start.
    ``id_is_random``: the id was made here, so no item can have had it before.

    ``terms.start_us`` is not used: the script takes the start from here, or Redis TIME.
    """

    terms: Terms
    name: str
    description: str = ""
    image_urls: tuple[str, ...] = ()
    start_us: int | None = None
    length_us: int | None = None
    auto_opened: bool = False
    id_is_random: bool = False


def require_future_end(item: NewItem, now_us: int) -> None:
    """Raise the error for an end that is not in the future of this Unix time. The clock of Redis decides it again when
    the item is opened."""
    end_us = item.terms.end_us
    if item.length_us is None and end_us is not None and end_us <= now_us:
        raise end_is_over()


def created_members(item: NewItem) -> str:
    """The `created` event's own members, as JSON that the script puts between its own."""
    terms = item.terms
    soft = terms.soft_close
    members: dict[str, Any] = {
        "name": item.name,
        "description": item.description,
        "seller_id": terms.seller_id,
        "start_price": terms.start_price,
        "reserve_price": terms.reserve_price,
        "buy_now_price": terms.buy_now_price,
        "increment_kind": terms.increment.kind,
        "increment_value": terms.increment.value,
        "increment_steps": encode_steps(terms.increment),
        "soft_close": ""
        if soft is None
        else msgspec.json.encode(
            {
                "trigger_us": soft.trigger_us,
                "extend_us": soft.extend_us,
                "mode": soft.mode,
                "max_count": soft.max_count,
                "hard_end_us": soft.hard_end_us,
            }
        ).decode(),
        "auto_opened": item.auto_opened,
        "approval_required": terms.approval_required,
    }
    if item.image_urls:
        members["image_urls"] = item.image_urls
    return msgspec.json.encode(members).decode()[1:-1] + ","


def opened_item(item: NewItem, opened: OpenResult) -> ItemState:
    """The item as a read would have told it at the moment when it was opened."""
    terms = replace(item.terms, start_us=opened.start_us, end_us=opened.end_us)
    state = replace(opening_state(terms, opened.created_us), epoch=opened.epoch)
    return ItemState(
        terms=terms,
        state=state,
        name=item.name,
        description=item.description,
        original_end_us=opened.end_us,
        created_us=opened.created_us,
        updated_us=opened.created_us,
        image_urls=item.image_urls,
    )
