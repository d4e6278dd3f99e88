"""A gateway and an archiver for the files that work on a running gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from tests.stack import running_stack


@pytest.fixture(scope="package")
def gateway_stack() -> Iterator[Stack]:
    """One for several files: tests/distribution.py keeps them together."""
    with running_stack(services=(API_GATEWAY, ARCHIVAL_WORKER)) as stack:
        yield stack
