"""A dictionary that bounds the bytes of its values, for values that can be made anew."""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")


class BoundedDict(Generic[V]):
    """Values by name. Where all of them take more than ``bytes_max``, the oldest ones go first."""

    def __init__(self, *, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._values: dict[str, tuple[V, int]] = {}
        self.bytes_used = 0
        """The sum of the sizes that callers of :meth:`put` gave."""

    def __len__(self) -> int:
        return len(self._values)

    def get(self, name: str) -> V | None:
        """The value; None where there is none any more."""
        found = self._values.get(name)
        return None if found is None else found[0]

    def put(self, name: str, value: V, size: int) -> None:
        """Keep a value of ``size`` bytes, unless it is larger than all may be."""
        self.remove(name)
        if size > self._bytes_max:
            return
        self._values[name] = value, size
        self.bytes_used += size
        while self.bytes_used > self._bytes_max:
            self.remove(next(iter(self._values)))

    def remove(self, name: str) -> None:
        """Forget the value, if there is one."""
        _, size = self._values.pop(name, (None, 0))
        self.bytes_used -= size
