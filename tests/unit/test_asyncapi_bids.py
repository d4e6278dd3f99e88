"""docs/asyncapi-bids.yaml and docs/bid-socket.md: what the gateway's code takes and makes."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
import yaml  # type: ignore[import-untyped]

from api_gateway.bid_socket.messages import CLOSE_CODES, BidOp, answer, read_bid, refusal
from api_gateway.bid_socket.session import ERRORS_MAX, IDLE_S, IN_FLIGHT_MAX, STALLED_S, UNKNOWN_AT_ONCE
from api_gateway.door.rates import CALLER, Near, RateLimited
from api_gateway.hot_path import BID_BYTES_MAX
from shared.domain.errors import InvalidInput, OutcomeUnknown
from shared.pacing.buckets import Rate
from tests.documents.asyncapi import PATH, AsyncApi

DOCS = PATH.parent
PAGE = (DOCS / "bid-socket.md").read_text()
EXAMPLES = [line for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.fixture(scope="module")
def api() -> AsyncApi:
    return AsyncApi(yaml.safe_load((DOCS / "asyncapi-bids.yaml").read_text()))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text[:40])
def test_every_example_is_as_described(api: AsyncApi, example: str) -> None:
    assert len(api.names_of(json.loads(example))) == 1, api.why_not(json.loads(example))


def test_a_bid_has_the_described_members(api: AsyncApi) -> None:
    described = api.document["components"]["schemas"]["BidOp"]
    fields = {field.name: field.required for field in msgspec.structs.fields(BidOp)}
    assert set(described["properties"]) == {"op", *fields}
    assert set(described["required"]) == {"op", *(name for name, required in fields.items() if required)}


@pytest.mark.parametrize("message_id", [0, 2**53 - 1, "x" * 64, 'ü"\\'])
def test_ids_come_back_as_they_were(api: AsyncApi, message_id: int | str) -> None:
    text = json.dumps({"op": "bid", "id": message_id, "item_id": "a", "user_id": "ann", "amount": 1})
    assert api.names_of(json.loads(text)) == ["bid"]
    sent = read_bid(text)
    for frame in (answer(sent.id, 201, b"{}"), refusal(sent.id, OutcomeUnknown()), refusal(None, InvalidInput("no"))):
        assert frame[0] == 0x81
        told = json.loads(frame[2 if frame[1] < 126 else 4 :])
        assert api.names_of(told) == ["answer"], api.why_not(told)
        assert told["id"] in (message_id, None)


def test_what_is_left_is_told_where_it_is_little(api: AsyncApi) -> None:
    near = Near(CALLER, Rate(per_s=2, burst=20), left=4, reset_s=8)
    for frame, left, reset_s in (
        (answer(1, 201, b"{}", near), 4, 8),
        (refusal(1, OutcomeUnknown(), near), 4, 8),
        (refusal(1, RateLimited(CALLER, near.rate, 2.5)), 0, 3),
    ):
        told = json.loads(frame[2 if frame[1] < 126 else 4 :])
        assert api.names_of(told) == ["answer"], api.why_not(told)
        assert told["rate_limit"] == {"policy": "caller", "remaining": left, "reset_s": reset_s}
    assert b"rate_limit" not in answer(1, 201, b"{}") + refusal(1, OutcomeUnknown())


@pytest.mark.parametrize("message_id", [-1, 2**53, "", "x" * 65, None, 1.5, True])
def test_what_is_no_id(api: AsyncApi, message_id: object) -> None:
    message = {"op": "bid", "id": message_id, "item_id": "a", "user_id": "ann", "amount": 1}
    assert api.names_of(message) == []
    with pytest.raises(InvalidInput):
        read_bid(json.dumps(message))


def test_the_page_names_the_bounds_and_the_codes() -> None:
    for code in CLOSE_CODES:
        assert re.search(rf"^\| {code.code} ", PAGE, re.MULTILINE), code
        assert len(code.reason.encode()) <= 123
    for bound in (f"{BID_BYTES_MAX // 1024} KiB", f"| {IN_FLIGHT_MAX:,} |", f"| {UNKNOWN_AT_ONCE} at a time"):
        assert bound in PAGE
    for bound in (f"| {ERRORS_MAX}, and one more", f"after {STALLED_S:.0f} s", f"| {IDLE_S / 60:.0f} min"):
        assert bound in PAGE
