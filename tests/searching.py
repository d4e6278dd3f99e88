"""How hard the property tests search.

`make test` is a gate: it tries the same examples every time, so that it says something about the change before it and
not about luck. `make fuzz` is the search: new examples in every run, and ``FUZZ`` times as many.
"""

from __future__ import annotations

import os

from hypothesis import settings

FUZZ_VARIABLE = "FUZZ"


def factor() -> int:
    """How many times as many examples as in the gate.

    Raises:
        ValueError: if ``FUZZ`` is not a whole number of at least 1.
    """
    named = os.environ.get(FUZZ_VARIABLE, "1")
    if not named.isdecimal() or int(named) < 1:
        raise ValueError(f"{FUZZ_VARIABLE} must be a whole number of at least 1, not {named!r}")
    return int(named)


def load() -> None:
    """Choose the profile; to be called before a test module is imported."""
    settings.register_profile("gate", derandomize=True, deadline=None)
    settings.register_profile("search", deadline=None, print_blob=True, max_examples=examples(100))
    settings.load_profile("gate" if factor() == 1 else "search")


def examples(count: int) -> int:
    """``count`` in the gate, a multiple of it in the search."""
    return count * factor()
