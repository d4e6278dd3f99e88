"""What bidders send: every kind of bid, and some that can only be wrong."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.faults.judging.records import KeyKind


@dataclass(frozen=True, slots=True)
class Wish:
    """A bid that a client wants to place, in cents. ``name``: its bid id or its header, by ``key``.

    ``sent_as``: what is sent in place of the name, by somebody who takes another bid's.
    """

    name: str
    item_id: str
    user_id: str
    amount: int | None
    max_amount: int | None = None
    key: KeyKind = "bid_id"
    buys_now: bool = False
    is_misuse: bool = False
    sent_as: str | None = None

    @property
    def kind(self) -> str:
        """The kind of the bid, for counting: its key, and what is bid."""
        if self.is_misuse:
            return "misuse"
        content = "amount" if self.max_amount is None else "max" if self.amount is None else "both"
        return f"{self.key} {'buy now' if self.buys_now else content}"

    def body(self) -> bytes:
        """The JSON. Amounts are exact, and so they are text here."""
        members = [f'"user_id":"{self.user_id}"']
        if self.key == "bid_id":
            members.append(f'"bid_id":"{self.sent_as or self.name}"')
        members += [
            f'"{name}":{cents // 100}.{cents % 100:02d}'
            for name, cents in (("amount", self.amount), ("max_amount", self.max_amount))
            if cents is not None
        ]
        return ("{" + ",".join(members) + "}").encode()

    def headers(self) -> dict[str, str]:
        """The key, where it is one of the header."""
        return {"idempotency-key": self.sent_as or self.name} if self.key == "header" else {}


@dataclass(frozen=True, slots=True)
class Kinds:
    """How often a bidder does what; the numbers are probabilities per bid.

    Attributes:
        keys: the kinds of keys, each as often.
        maxima: how often a bid has a maximum, alone or beside an amount.
        buys_now: how often an item is bought where that is offered.
        repeats: how often a bid that was decided is sent again.
        lookups: how often a bid of unknown outcome is asked for by its key before it is sent again.
        misuse: how often somebody sends what can only be wrong: another bid's key or id.
    """

    keys: Sequence[KeyKind] = ("bid_id", "header", "none")
    maxima: float = 0.4
    buys_now: float = 0.02
    repeats: float = 0.1
    lookups: float = 0.3
    misuse: float = 0.0


EVERY = Kinds()
PLAIN = Kinds(keys=("bid_id",), maxima=0, buys_now=0, repeats=0, lookups=0)
"""A bid id and an amount: for tests that count on one event per bid."""
HOSTILE = replace(EVERY, misuse=0.05)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a client knows of an item, in cents."""

    minimum: int = 1
    buy_now: int | None = None
    is_over: bool = False


def wish_of(chance: random.Random, kinds: Kinds, name: str, item_id: str, user_id: str, heard: Heard) -> Wish:
    """The next bid: about the minimum, now and then too low, or far above it."""
    key = chance.choice(kinds.keys)
    if heard.buy_now is not None and chance.random() < kinds.buys_now:
        more = chance.choice((0, 0, 100))
        return Wish(name, item_id, user_id, heard.buy_now + more, key=key, buys_now=True)
    amount = max(1, heard.minimum + chance.choice((-6, 0, 0, 1, 9, 24)))
    if chance.random() >= kinds.maxima:
        return Wish(name, item_id, user_id, amount, key=key)
    maximum = amount + chance.choice((0, 1, 10, 60, 300))
    return Wish(name, item_id, user_id, chance.choice((None, amount)), maximum, key)


def misuse_of(chance: random.Random, name: str, taken: Wish, told_id: str | None, user_id: str) -> Wish | None:
    """A bid under a key or an id that is another's; None where nothing of that bid can be misused.

    An id that the platform made is nobody's to send, nor the one that it would make next. A bid id names one bid of its
    item, whoever sends it; the key of a header belongs to its bidder.
    """
    amount = (taken.max_amount or taken.amount or 0) + chance.randint(1, 500)
    wrong = Wish(name, taken.item_id, user_id, amount, key="bid_id", is_misuse=True)
    if taken.key == "bid_id":
        return replace(wrong, sent_as=taken.name)
    if taken.key == "header" and chance.random() < 0.5:
        return replace(wrong, sent_as=taken.name, user_id=taken.user_id, key="header")
    if told_id is None:
        return None
    return replace(wrong, sent_as=chance.choice((told_id, _following(told_id))))


def _following(made_id: str) -> str:
    """What a platform that counts would make next."""
    prefix, dash, number = made_id.rpartition("-")
    try:
        return f"{prefix}{dash}{int(number, 16) + 1:x}"
    except ValueError:
        return made_id
