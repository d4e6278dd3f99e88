"""Locust's entry point: ``locust -f load_tests/locustfile.py --host http://127.0.0.1:8080 --items load-1``.

Works with Locust's own page as well as headless. It has the contended scenario; the others are in ``scenarios/``.
"""

from __future__ import annotations

import os

from load_tests.scenarios.contended import ContendedBidder

__all__ = ["ContendedBidder"]

ContendedBidder.host = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8080")
