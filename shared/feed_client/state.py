"""Decides what a client of the live feed sends and shows, and when it reconnects. Pure: no network, no clock.

Every method changes the state at once and returns a :class:`Step`: updates for the user, messages to send, and how long
to wait before the next attempt. ``now_s`` is any monotonic clock in seconds. :mod:`shared.feed_client.client` moves the
bytes.

Guarantees, whatever the network and the service do:

- The versions of an item only rise, and each is shown once. So a price falls only if an event lowered it (a void) or
  the item was rebuilt in a higher epoch.
- An update with ``complete`` is the very next event. With ``full`` the client asks for every event, and asks again for
  a missing one before it shows a later one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import msgspec

from shared.feed_client.clock import ServerClock, instant_us
from shared.feed_client.item import FollowedItem, Gap, version_of
from shared.feed_client.updates import (
    Authenticated,
    ConnectionChanged,
    ConnectionState,
    FeedClosed,
    FeedDenied,
    Refused,
    StaleItem,
    Standing,
    Update,
    Version,
    Viewers,
)
from shared.names import is_item_id

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 30.0
RETRY_AFTER_MAX_S: Final = 300.0
STEADY_AFTER_S: Final = 5.0
"""A connection that lasted for less does not reset the waits: a service that accepts and closes at once must not be
called in a tight loop."""

SLOW_DOWN_ATTEMPT: Final = 4
"""After asking for too much, the client waits as after so many failed attempts, then sends what is still needed in few
messages."""

GREETING_MAX_S: Final = 10.0
"""How long the first frame may take."""

HEARTBEATS_MISSED_MAX: Final = 3
MESSAGE_BYTES_MAX: Final = 4_000
"""Below FEED_MESSAGE_BYTES_MAX of the service, which is 8 KiB."""

FINAL_STANDARD_CODES: Final = frozenset({1002, 1007, 1008, 1009})
_AGAIN_STATUSES: Final = frozenset({408, 425, 429})

_SLOW_DOWN_CODE: Final = 4529
_SLOW_DOWN_ERROR: Final = "TOO_MANY_OPERATIONS"
_NOT_SUBSCRIBED: Final = frozenset({"ITEM_NOT_FOUND", "ITEM_ID_INVALID", "SINCE_INVALID", "TOO_MANY_ITEMS"})

_decoder: Final = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_encode: Final = msgspec.json.Encoder().encode


def is_final(code: int) -> bool:
    """Whether the same request would be refused again after this close code; 4400 to 4499 are the feed's own codes."""
    return code in FINAL_STANDARD_CODES or 4400 <= code <= 4499


@dataclass(slots=True)
class Step:
    """Updates for the user, messages for the service, and the wait before the next attempt. If a received message leads
    to a wait, the connection must be closed.
    """

    updates: list[Update] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    retry_in_s: float | None = None


class FeedState:
    """Everything that a client knows.

    Args:
        items: ids to follow from the start.
        token: the feed token, sent on each connection until it is refused. Tickets, which are good once, are arguments
            of :meth:`opened` and :meth:`authenticate_by_ticket`.
        full: every event is wanted, instead of a limited number of states per second.
        chance: random numbers from 0 to 1, for the waits.

    Raises:
        ValueError: an id is not an item id.
    """

    def __init__(
        self,
        items: Iterable[str] = (),
        *,
        token: str | None = None,
        full: bool = False,
        chance: Callable[[], float],
    ) -> None:
        self.connection = ConnectionState.OFFLINE
        self.clock = ServerClock()
        self._full = full
        self._token = token
        # Sent over this connection and not answered yet, in order.
        self._tokens_sent: deque[str] = deque()
        self._chance = chance
        self._items = {item_id: FollowedItem(item_id, every_event=full) for item_id in map(_checked, items)}
        self._batch_of: dict[str, tuple[str, ...]] = {}
        self._is_open = False
        self._greeted_s: float | None = None
        self._heartbeat_s: float | None = None
        self._is_service_stale = False
        self._attempt = 0

    # ---------------------------------------------------------------------------------------------------- what is known

    @property
    def items(self) -> tuple[str, ...]:
        """The ids that are followed."""
        return tuple(self._items)

    @property
    def query(self) -> str:
        """The query string of the URL."""
        return "feed=full" if self._full else ""

    def item(self, item_id: str) -> Mapping[str, Any] | None:
        """The newest known public state; None before the first one."""
        known = self._items.get(item_id)
        return known.view if known is not None and known.version is not None else None

    def version(self, item_id: str) -> Version | None:
        """The version of :meth:`item`."""
        known = self._items.get(item_id)
        return None if known is None else known.version

    def is_current(self, item_id: str) -> bool:
        """Whether the item is up to date, as far as client and service can tell."""
        known = self._items.get(item_id)
        return known is not None and known.is_joined and not known.is_stale and not self._is_service_stale

    @property
    def silence_max_s(self) -> float | None:
        """How long the service may be silent before the connection counts as dead; None: for ever."""
        if self._greeted_s is None:
            return GREETING_MAX_S
        return None if self._heartbeat_s is None else HEARTBEATS_MISSED_MAX * self._heartbeat_s

    def remaining_s(self, item_id: str, now_s: float) -> float | None:
        """Seconds to the end of the item by the service's clock, 0 when it is over; None without an end or a clock."""
        view = self.item(item_id)
        server_us = self.clock.now_us(now_s)
        end_us = instant_us(view.get("end_time")) if view else None
        return None if end_us is None or server_us is None else max(0.0, (end_us - server_us) / 1_000_000)

    # ------------------------------------------------------------------------------------------------- the connection

    def connecting(self) -> Step:
        """An attempt begins."""
        return self._with_state(Step(), ConnectionState.CONNECTING)

    def opened(self, ticket: str | None = None) -> Step:
        """The connection is open: authenticate, by the ticket if there is one, and subscribe to all items with
        ``since``."""
        self._is_open = True
        self._greeted_s = self._heartbeat_s = None
        self.clock.reset()
        proof = self._authenticate() if ticket is None else self.authenticate_by_ticket(ticket).messages
        return Step(messages=[*proof, *self._subscribe(self._items)])

    def received(self, text: str | bytes, now_s: float) -> Step:
        """Take a message of the service. Unknown ones are skipped: a newer service may send more."""
        step = Step()
        try:
            frame = _decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return step
        self._note_time(frame, now_s)
        if frame.get("type") == "error" and frame.get("code") == _SLOW_DOWN_ERROR:
            return self._slow_down(frame)
        match frame.get("type"):
            case "connected":
                self._greeted_s = now_s
                self._heartbeat_s = _seconds(frame.get("heartbeat_s"))
            case "heartbeat":
                self._is_service_stale = frame.get("stale") is True
            case "error":
                self._error(frame, step)
            case "authenticated":
                if self._tokens_sent:
                    self._tokens_sent.popleft()
                expires = frame.get("expires")
                step.updates.append(Authenticated(str(frame.get("user_id")), None if expires is None else str(expires)))
            case str() if (item := self._items.get(str(frame.get("item_id")))) is not None:
                self._about(item, frame, step)
        return self._with_state(step, self._open_state())

    def closed(self, code: int, reason: str, now_s: float) -> Step:
        """The connection is closed; ``code`` is the service's, 1006 if it sent none.

        Raises:
            FeedClosed: the code is final.
        """
        held = self._greeted_s is not None and now_s - self._greeted_s >= STEADY_AFTER_S
        self._disconnect()
        if is_final(code):
            self.connection = ConnectionState.OFFLINE
            raise FeedClosed(code, reason)
        if code == _SLOW_DOWN_CODE:
            self._attempt = max(self._attempt, SLOW_DOWN_ATTEMPT)
        elif held:
            self._attempt = 0
        return self._retry()

    def failed(self) -> Step:
        """No connection could be made."""
        self._disconnect()
        return self._retry()

    def refused(self, status: int, detail: str, retry_after_s: float | None = None) -> Step:
        """The upgrade was answered with an HTTP status.

        Raises:
            FeedDenied: the same request would be refused again.
        """
        self._disconnect()
        if 400 <= status < 500 and status not in _AGAIN_STATUSES:
            self.connection = ConnectionState.OFFLINE
            raise FeedDenied(status, detail)
        if retry_after_s is None or not math.isfinite(retry_after_s):
            return self._retry()
        return self._retry(min(max(retry_after_s, 0.0), RETRY_AFTER_MAX_S))

    # ------------------------------------------------------------------------------------------------------- the user

    def follow(self, items: Iterable[str]) -> Step:
        """Follow these items too; nothing changes for those that are followed already.

        Raises:
            ValueError: one of them is not an item id; nothing was changed.
        """
        added = {each: FollowedItem(each, every_event=self._full) for each in map(_checked, items)}
        added = {item_id: item for item_id, item in added.items() if item_id not in self._items}
        self._items |= added
        return Step(messages=self._subscribe(added) if self._is_open else [])

    def unfollow(self, items: Iterable[str]) -> Step:
        """Stop following these items, and forget them."""
        gone = [item_id for item_id in items if self._items.pop(item_id, None) is not None]
        for item_id in gone:
            self._batch_of.pop(item_id, None)
        step = Step(messages=_operations("unsubscribe", gone) if self._is_open else [])
        return self._with_state(step, self._open_state() if self._greeted_s is not None else self.connection)

    def authenticate(self, token: str) -> Step:
        """Open the private channel with this token from now on, on each connection."""
        self._token = token
        return Step(messages=self._authenticate() if self._is_open else [])

    def authenticate_by_ticket(self, ticket: str) -> Step:
        """Open the private channel with this ticket, on this connection."""
        return Step(messages=[_encode({"op": "authenticate", "ticket": ticket}).decode()] if self._is_open else [])

    def ask_standing(self, items: Iterable[str]) -> Step:
        """Ask for the standing again, whether it changed or not."""
        asked = [item_id for item_id in items if item_id in self._items]
        return Step(messages=_operations("standing", asked) if self._is_open else [])

    # --------------------------------------------------------------------------------------------------------- inside

    def _about(self, item: FollowedItem, frame: dict[str, Any], step: Step) -> None:
        match frame["type"]:
            case "stale":
                stale = frame.get("stale") is True
                if stale is not item.is_stale:
                    item.is_stale = stale
                    step.updates.append(StaleItem(item.item_id, stale))
            case "viewers":
                viewers = frame.get("viewers")
                if type(viewers) is int:
                    step.updates.append(Viewers(item.item_id, viewers, frame.get("exact") is True))
            case "standing":
                self._standing(item, frame, step)
            case _:
                try:
                    update = item.take(frame)
                except Gap:
                    step.messages += self._subscribe({item.item_id: item})
                else:
                    step.updates += [] if update is None else [update]

    def _standing(self, item: FollowedItem, frame: dict[str, Any], step: Step) -> None:
        version = version_of(frame)
        # A standing of the same version may differ: a raise has no event.
        if version is None or (item.standing is not None and version < item.standing):
            return
        item.standing = version
        alias = frame["alias"] if isinstance(frame.get("alias"), str) else None
        current_bid, min_next_bid, maximum = (
            _amount(frame.get(name)) for name in ("current_bid", "min_next_bid", "your_maximum")
        )
        step.updates.append(
            Standing(item.item_id, version, str(frame.get("standing")), current_bid, min_next_bid, maximum, alias)
        )

    def _error(self, frame: dict[str, Any], step: Step) -> None:
        code, message, item_id = str(frame.get("code")), str(frame.get("message", "")), frame.get("item_id")
        if code == "TOKEN_INVALID" and self._tokens_sent and self._tokens_sent.popleft() == self._token:
            # The next connection would refuse it too.
            self._token = None
        if not isinstance(item_id, str) or code not in _NOT_SUBSCRIBED:
            step.updates.append(Refused(code, message, item_id if isinstance(item_id, str) else None))
            return
        if item_id not in self._items:
            return
        lost = [item_id]
        if code == "TOO_MANY_ITEMS":
            # The service stops at the first item that is too many, and reports no further ones.
            batch = self._batch_of.get(item_id, (item_id,))
            rest = batch[batch.index(item_id) + 1 :]
            lost += [each for each in rest if each in self._items and not self._items[each].is_joined]
        for each in lost:
            del self._items[each]
            step.updates.append(Refused(code, message, each, ended=True))

    def _slow_down(self, frame: dict[str, Any]) -> Step:
        """Some operations were not carried out, and the service does not say which: reconnect later, and send all
        again."""
        self._disconnect()
        self._attempt = max(self._attempt, SLOW_DOWN_ATTEMPT)
        step = self._retry()
        step.updates.insert(0, Refused(_SLOW_DOWN_ERROR, str(frame.get("message", ""))))
        return step

    def _note_time(self, frame: dict[str, Any], now_s: float) -> None:
        server_us = instant_us(frame.get("server_time"))
        if server_us is not None:
            self.clock.note(server_us, now_s)

    def _authenticate(self) -> list[str]:
        if self._token is None:
            return []
        self._tokens_sent.append(self._token)
        return [_encode({"op": "authenticate", "token": self._token}).decode()]

    def _subscribe(self, items: Mapping[str, FollowedItem]) -> list[str]:
        messages = []
        for batch in _batches(items):
            self._batch_of |= dict.fromkeys(batch, batch)
            operation: dict[str, Any] = {"op": "subscribe", "items": batch}
            since = {item_id: items[item_id].since for item_id in batch if items[item_id].since is not None}
            operation |= ({"since": since} if since else {}) | ({"feed": "full"} if self._full else {})
            messages.append(_encode(operation).decode())
        return messages

    def _open_state(self) -> ConnectionState:
        if self._greeted_s is None:
            return ConnectionState.CONNECTING
        is_stale = self._is_service_stale or any(item.is_stale for item in self._items.values())
        return ConnectionState.STALE if is_stale else ConnectionState.LIVE

    def _disconnect(self) -> None:
        self._is_open = self._is_service_stale = False
        self._greeted_s = self._heartbeat_s = None
        self._batch_of.clear()
        self._tokens_sent.clear()
        for item in self._items.values():
            item.disconnected()

    def _retry(self, at_least_s: float = 0.0) -> Step:
        """Full jitter: after a restart of the service its viewers must not all reconnect at once."""
        most_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * math.ldexp(1, min(self._attempt, 16)))
        self._attempt += 1
        step = Step(retry_in_s=at_least_s + self._chance() * most_s)
        return self._with_state(step, ConnectionState.OFFLINE)

    def _with_state(self, step: Step, state: ConnectionState) -> Step:
        if state is not self.connection:
            self.connection = state
            step.updates.append(ConnectionChanged(state))
        return step


def _checked(item_id: str) -> str:
    if not is_item_id(item_id):
        raise ValueError(f"{item_id!r} is no item id: 1 to 64 characters of A-Z a-z 0-9 _ -")
    return item_id


def _batches(items: Iterable[str]) -> Iterable[tuple[str, ...]]:
    """Split items into messages that the service accepts: an id may be in one twice, with a ``since`` of up to 31
    digits."""
    batch: list[str] = []
    size = 0
    for item_id in items:
        cost = 2 * len(item_id) + 45
        if batch and size + cost > MESSAGE_BYTES_MAX:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(item_id)
        size += cost
    if batch:
        yield tuple(batch)


def _operations(name: str, items: Iterable[str]) -> list[str]:
    return [_encode({"op": name, "items": batch}).decode() for batch in _batches(items)]


def _seconds(value: object) -> float | None:
    """A positive number of seconds; None for anything else: without heartbeats, silence means nothing."""
    return float(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) and value > 0 else None


def _amount(value: object) -> Decimal | None:
    return Decimal(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else None
