"""How violations are put into words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_EXAMPLES_MAX = 3


def report(what: str, found: Iterable[object]) -> Iterator[str]:
    """One sentence with a few examples, where there are any."""
    examples = sorted({str(each) for each in found})
    if examples:
        more = ", …" if len(examples) > _EXAMPLES_MAX else ""
        yield f"{len(examples)} {what} ({', '.join(examples[:_EXAMPLES_MAX])}{more})"


def repeated(values: Iterable[object]) -> set[object]:
    """The values that come more than once."""
    seen: set[object] = set()
    return {value for value in values if value in seen or seen.add(value)}  # type: ignore[func-returns-value]
