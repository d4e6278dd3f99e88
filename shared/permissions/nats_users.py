"""What each account may publish and hear at NATS. Pure.

JetStream is asked by messages too, so what may be done to a stream is a matter of subjects. Answers come to inboxes
below ``_INBOX.<user>``, and nobody hears another's (:func:`shared.clients.nats.inbox_prefix`).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shared.names import ARCHIVER_DURABLE, NUDGE_PREFIX, REVOKED_SUBJECT, STREAM, SUBJECT_ALL
from shared.permissions.accounts import Account, Login, Logins

FEED_VIEWERS: Final = "feed.viewers"
"""The subject on which broadcasters tell each other how many viewers each item has."""
_API: Final = "$JS.API"
_BUCKETS: Final = ("KV_read_cache_leases", "KV_read_cache_ring")
_RING_CHANGED: Final = "read_cache.ring_changed"


@dataclass(frozen=True, slots=True)
class Subjects:
    """What an account may publish, but for ``never``, and what it may subscribe to beside its own inboxes."""

    publish: Sequence[str]
    subscribe: Sequence[str] = ()
    never: Sequence[str] = ()


# Whichever service comes first makes the stream.
_STREAM: Final = (f"{_API}.STREAM.INFO.{STREAM}", f"{_API}.STREAM.CREATE.{STREAM}")
_LOOK_UP: Final = (
    f"{_API}.STREAM.MSG.GET.{STREAM}",
    f"{_API}.DIRECT.GET.{STREAM}",
    f"{_API}.DIRECT.GET.{STREAM}.>",
)
# Consumers of one's own; but not that of the archivers, who share its messages. The name stands in the subject: where
# it stands in the request alone, as in the older call `CONSUMER.CREATE.<stream>`, no permission sees it, and the
# request may change the archivers' consumer.
_MAKE_CONSUMER: Final = f"{_API}.CONSUMER.CREATE.{STREAM}.*.{SUBJECT_ALL}"
_NOT_OF_ARCHIVER: Final = (
    f"{_API}.CONSUMER.CREATE.{STREAM}.{ARCHIVER_DURABLE}.>",
    f"{_API}.CONSUMER.MSG.NEXT.{STREAM}.{ARCHIVER_DURABLE}",
)
# Its messages go to an inbox. The answers of its flow control go back.
_FOLLOW: Final = (_MAKE_CONSUMER, f"$JS.FC.{STREAM}.>")
_READ_ALL: Final = (
    _MAKE_CONSUMER,
    f"{_API}.CONSUMER.INFO.{STREAM}.*",
    f"{_API}.CONSUMER.MSG.NEXT.{STREAM}.*",
)
_ARCHIVED: Final = f"{_API}.CONSUMER.INFO.{STREAM}.{ARCHIVER_DURABLE}"
# Who is in the ring of the read cache: nodes and those who ask them look there, nodes alone write.
_RING_READ: Final = (
    *(
        f"{_API}.{call}.{bucket}"
        for bucket in _BUCKETS
        for call in ("STREAM.INFO", "STREAM.CREATE", "STREAM.MSG.GET", "DIRECT.GET")
    ),
    # A bucket that somebody has made by hand is read by this subject.
    *(f"{_API}.DIRECT.GET.{bucket}.>" for bucket in _BUCKETS),
)
_RING_WRITE: Final = ("$KV.read_cache_leases.>", "$KV.read_cache_ring.>", _RING_CHANGED)

SUBJECTS: Final[Mapping[Account, Subjects]] = {
    Account.GATEWAY: Subjects(
        (*_STREAM, *_LOOK_UP, *_READ_ALL, *_RING_READ, SUBJECT_ALL, f"{NUDGE_PREFIX}.*", REVOKED_SUBJECT),
        (f"{NUDGE_PREFIX}.*", REVOKED_SUBJECT, _RING_CHANGED),
        _NOT_OF_ARCHIVER,
    ),
    Account.BROADCASTER: Subjects(
        (*_STREAM, *_LOOK_UP, *_FOLLOW, FEED_VIEWERS),
        (FEED_VIEWERS,),
        _NOT_OF_ARCHIVER,
    ),
    Account.ARCHIVER: Subjects(
        (
            *_STREAM,
            *_LOOK_UP,
            _ARCHIVED,
            f"{_API}.STREAM.PURGE.{STREAM}",
            f"{_API}.CONSUMER.CREATE.{STREAM}.{ARCHIVER_DURABLE}",
            f"{_API}.CONSUMER.CREATE.{STREAM}.{ARCHIVER_DURABLE}.>",
            f"{_API}.CONSUMER.MSG.NEXT.{STREAM}.{ARCHIVER_DURABLE}",
            f"$JS.ACK.{STREAM}.{ARCHIVER_DURABLE}.>",
        )
    ),
    Account.CACHE: Subjects(
        (*_STREAM, *_LOOK_UP, *_FOLLOW, _ARCHIVED, *_RING_READ, *_RING_WRITE),
        (_RING_CHANGED,),
        _NOT_OF_ARCHIVER,
    ),
    # An operator reads the whole stream to rebuild what Redis has lost, and publishes no event.
    Account.OPERATOR: Subjects(
        (*_STREAM, *_LOOK_UP, *_READ_ALL),
        never=_NOT_OF_ARCHIVER,
    ),
}

OPEN_USER: Final = "anybody"
"""The user of clients that give no name, where that is allowed; it may do everything."""


def inbox_of(user: str) -> str:
    """The subject below which a user's answers come."""
    return f"_INBOX.{user}"


def users_of_nats(logins: Logins, *, open_to_all: bool, owners: Sequence[Login] = ()) -> str:
    """The part of a configuration file that says who may do what. It has the passwords, so its owner alone may read it.

    Args:
        open_to_all: whoever gives no name may do everything, without a password; otherwise nobody connects without.
        owners: who may do everything with a password.
    """
    users = [_user(login.user, login.passwords[0], account) for account, its in logins.items() for login in its]
    users += [_user(login.user, login.passwords[0]) for login in owners]
    open_user = ""
    if open_to_all:
        # A password that nobody knows: who gives none becomes this user.
        users.append(_user(OPEN_USER, secrets.token_hex(32)))
        open_user = f"no_auth_user: {_quoted(OPEN_USER)}\n"
    return "authorization {\n  users = [\n" + "\n".join(users) + "\n  ]\n}\n" + open_user


def permissions_of(account: Account, user: str) -> str:
    """The permissions of one user, as NATS has them."""
    subjects = SUBJECTS[account]
    heard = [f"{inbox_of(user)}.>", *subjects.subscribe]
    published = _list(subjects.publish)
    if subjects.never:
        published = f"{{ allow: {published}, deny: {_list(subjects.never)} }}"
    return f"{{ publish: {published}, subscribe: {_list(heard)} }}"


def _user(user: str, password: str, account: Account | None = None) -> str:
    rights = "" if account is None else f",\n      permissions: {permissions_of(account, user)}"
    return f"    {{ user: {_quoted(user)}, password: {_quoted(password)}{rights} }}"


def _list(subjects: Sequence[str]) -> str:
    return "[" + ", ".join(_quoted(subject) for subject in subjects) + "]"


def _quoted(text: str) -> str:
    # A variable of the environment stands without quotes, and brings its own.
    return text if text.startswith("$NATS_") else json.dumps(text)
