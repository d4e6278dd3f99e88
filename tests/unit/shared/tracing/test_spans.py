"""How spans are named in headers."""

from __future__ import annotations

import pytest

from shared.tracing.spans import TRACES_MAX, SpanContext, read_traceparent, traces_header, traces_in

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_span_is_named_as_the_recommendation_has_it() -> None:
    context = read_traceparent(f"00-{TRACE}-{SPAN}-01")
    assert context == SpanContext(int(TRACE, 16), int(SPAN, 16), True)
    assert context.traceparent == f"00-{TRACE}-{SPAN}-01"
    assert read_traceparent(f"00-{TRACE}-{SPAN}-00") == SpanContext(int(TRACE, 16), int(SPAN, 16), False)


def test_a_later_version_may_say_more() -> None:
    # All flags but one are somebody else's.
    assert read_traceparent(f"01-{TRACE}-{SPAN}-03-what-comes") == SpanContext(int(TRACE, 16), int(SPAN, 16), True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
    ],
)
def test_what_is_malformed_names_nothing(text: str) -> None:
    assert read_traceparent(text) is None


def test_a_message_names_a_bounded_number_of_spans() -> None:
    many = [SpanContext(number, number) for number in range(1, 100)]
    header = traces_header(many)
    assert len(header) < 512
    assert traces_in(header) == many[:TRACES_MAX]


def test_whatever_else_stands_in_a_header_is_left_out() -> None:
    sampled, other = SpanContext(1, 2), SpanContext(3, 4, is_sampled=False)
    assert traces_in(f"nonsense,{other.traceparent},{sampled.traceparent}") == [sampled]
    assert traces_in("") == []
    assert traces_in(",".join([sampled.traceparent] * 100)) == []
