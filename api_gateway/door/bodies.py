"""How many bytes of request bodies are in memory: of all clients, and of one address. Pure."""

from __future__ import annotations

from shared.domain.errors import BiddingError, Overloaded


class TooManyBytes(BiddingError):
    """Bodies of this address take all the memory that they may; nothing was changed."""

    code = "TOO_MANY_BODIES_FROM_ADDRESS"
    retry_after_s = 1


class BodyBytes:
    """Counts the bytes that have arrived and whose requests have no answer yet.

    Args:
        bytes_max: of all.
        each_max: of one address; 0 for no limit of its own.
    """

    def __init__(self, bytes_max: int, each_max: int) -> None:
        self._bytes_max = bytes_max
        self._each_max = each_max
        self._of_address: dict[str, int] = {}
        self.held = 0
        self.refused_total = 0

    def take(self, address: str, count: int) -> None:
        """Count bytes that have arrived. ``address``: as it is counted; empty where it is not known.

        Raises:
            TooManyBytes, Overloaded: there is no room for them, and they are not counted.
        """
        of_address = self._of_address.get(address, 0) + count
        if address and self._each_max and of_address > self._each_max:
            self.refused_total += 1
            raise TooManyBytes(
                f"the requests of this address that have no answer yet may have {self._each_max} bytes together; "
                "wait for answers"
            )
        if self.held + count > self._bytes_max:
            self.refused_total += 1
            raise Overloaded("the requests that are being read take all the memory that they may; try again")
        self.held += count
        if address:
            self._of_address[address] = of_address

    def give_back(self, address: str, count: int) -> None:
        """Stop counting these bytes: their request is answered."""
        self.held -= count
        if not address:
            return
        left = self._of_address.get(address, 0) - count
        if left > 0:
            self._of_address[address] = left
        else:
            self._of_address.pop(address, None)
