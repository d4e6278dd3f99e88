"""Lines that clients cause are few, and tell of those that were left out."""

from __future__ import annotations

import logging

import pytest

from shared.pacing.seldom import Seldom

logger = logging.getLogger("seldom")


def test_a_flood_is_few_lines_and_how_many_there_were(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    seldom = Seldom(logger, lines_max=3, period_s=60, clock=lambda: now_s)
    for number in range(1_000):
        seldom.warning("number %d", number)
    assert caplog.messages == ["number 0", "number 1", "number 2"]
    assert seldom.left_out == 997
    now_s = 60.0
    seldom.warning("number %d", 1_000)
    seldom.warning("number %d", 1_001)
    assert caplog.messages[3:] == ["number 1000 (and 997 more like it were not logged)", "number 1001"]
