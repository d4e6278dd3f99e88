"""All close codes of the feed's WebSockets, and whether the viewer should reconnect.

After 4400 to 4499 and the final standard codes the same request would be refused again. After every other code a
viewer reconnects, with jitter, and asks for what it missed with ``?since=<epoch>:<seq>``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class CloseCode:
    """A code of RFC 6455 (1000 to 1015) or our own (4000 to 4999). ``reason``: at most 123 bytes, as a close frame
    allows.
    """

    code: int
    name: str
    reason: str
    reconnect: bool


# Reconnect: nothing is wrong with the viewer's request.
SERVICE_RESTART: Final = CloseCode(1012, "service_restart", "the service restarts; reconnect with since", True)
INTERNAL_ERROR: Final = CloseCode(1011, "internal_error", "the service failed; reconnect with since", True)
SLOW_VIEWER: Final = CloseCode(4508, "slow_viewer", "frames were not read in time; reconnect with since", True)
TOO_MANY_OPERATIONS: Final = CloseCode(
    4529, "too_many_operations", "more was asked for than is allowed; wait, reconnect with since", True
)

# Final: the same request would be refused again.
ITEM_NOT_FOUND: Final = CloseCode(4404, "item_not_found", "no item of this id", False)
TOO_MANY_ERRORS: Final = CloseCode(4429, "too_many_errors", "too many messages that could not be carried out", False)
# Sent by the WebSocket library itself; named here for completeness.
MESSAGE_TOO_BIG: Final = CloseCode(1009, "message_too_big", "the message is longer than the service accepts", False)
INVALID_TEXT: Final = CloseCode(1007, "invalid_text", "a text message is not UTF-8", False)
PROTOCOL_ERROR: Final = CloseCode(1002, "protocol_error", "not a valid WebSocket frame", False)

RECONNECT: Final = (SERVICE_RESTART, INTERNAL_ERROR, SLOW_VIEWER, TOO_MANY_OPERATIONS)
FINAL: Final = (
    ITEM_NOT_FOUND,
    TOO_MANY_ERRORS,
    MESSAGE_TOO_BIG,
    INVALID_TEXT,
    PROTOCOL_ERROR,
)
