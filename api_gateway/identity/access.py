"""Who may call what: one table, and the one function that reads it.

With ``AUTH_MODE=open`` everybody may do everything, as anybody. With ``AUTH_MODE=jwt`` the table holds, and what is not
in it is forbidden. docs/security.md shows the same table, and tests/integration/gateway/identity/test_access.py tries
each of its cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cache
from typing import Final

import msgspec
from fastapi import Request

from api_gateway.door.rates import FREE, Account
from shared.identity.errors import Forbidden, KeysAway, Unauthenticated
from shared.identity.principals import Principals, authorization_of
from shared.identity.tokens import Principal, Role
from shared.logs import request_facts


class Reach(StrEnum):
    """``OWN``: in one's own name, on one's own items, about one's own bids. ``ANY``: on all, for all."""

    OWN = "own"
    ANY = "any"


WATCHERS: Final = frozenset({Role.OPERATOR, Role.AUDITOR})
"""Who may see how the platform is doing, from wherever they ask."""
NOBODY: Final = None
"""The role of callers without a token. Everybody may make a call that needs none."""

_EVERYBODY: Final[Mapping[Role | None, Reach]] = {NOBODY: Reach.ANY}
_OVERSIGHT: Final[Mapping[Role | None, Reach]] = {Role.OPERATOR: Reach.ANY, Role.AUDITOR: Reach.ANY}
_OWN_ITEMS: Final[dict[Role | None, Reach]] = {Role.SELLER: Reach.OWN, Role.OPERATOR: Reach.ANY}
_OPERATORS: Final[dict[Role | None, Reach]] = {Role.OPERATOR: Reach.ANY}
_AUDITORS: Final[dict[Role | None, Reach]] = {Role.AUDITOR: Reach.ANY}

TABLE: Final[Mapping[str, Mapping[Role | None, Reach]]] = {
    # Bids.
    "place_bid": {Role.BIDDER: Reach.OWN},
    "place_bids": {Role.BIDDER: Reach.OWN},
    "bid_socket": {Role.BIDDER: Reach.OWN},
    "get_verdict": {Role.BIDDER: Reach.OWN, Role.OPERATOR: Reach.ANY, Role.AUDITOR: Reach.ANY},
    # Items.
    "create_item": _OWN_ITEMS,
    "create_items": _OWN_ITEMS,
    "upload_image": _OWN_ITEMS,
    "pause_item": _OWN_ITEMS,
    "resume_item": _OWN_ITEMS,
    "extend_item": _OWN_ITEMS,
    "cancel_item": _OWN_ITEMS,
    # Not by sellers: a seller who may strike bids on their own items could move the price.
    "void_bid": _OPERATORS,
    "list_items": _EVERYBODY,
    "get_item": _EVERYBODY,
    "get_history": _EVERYBODY,
    # Who may bid.
    **dict.fromkeys(
        (
            *("approve_on_item", "unapprove_on_item", "block_on_item", "unblock_on_item"),
            *("limit_on_item", "unlimit_on_item", "block_for_seller", "unblock_for_seller"),
        ),
        _OWN_ITEMS,
    ),
    "list_bidders_of_item": _OWN_ITEMS | _AUDITORS,
    **dict.fromkeys(("list_bidders_of_seller", "get_bidder_of_seller"), _OWN_ITEMS | _AUDITORS),
    "get_bidder_of_item": _OWN_ITEMS | _AUDITORS | {Role.BIDDER: Reach.OWN},
    **dict.fromkeys(("approve_bidder", "unapprove_bidder", "block_bidder", "unblock_bidder"), _OPERATORS),
    **dict.fromkeys(("limit_bidder", "unlimit_bidder"), _OPERATORS),
    **dict.fromkeys(("require_approval", "waive_approval"), _OPERATORS),
    "list_bidders": _OPERATORS | _AUDITORS,
    "get_bidder": _OPERATORS | _AUDITORS | {Role.BIDDER: Reach.OWN},
    "get_spending": _OPERATORS | _AUDITORS | {Role.BIDDER: Reach.OWN},
    "get_named_bids": _OVERSIGHT,
    "revoke_tokens": {Role.OPERATOR: Reach.ANY},
    # A caller with an API key has no token yet; the route checks the key.
    "exchange_api_key": _EVERYBODY,
    # The live feed.
    "make_feed_ticket": dict.fromkeys(Role, Reach.OWN),
    "make_feed_token": dict.fromkeys(Role, Reach.OWN),
    # The operators' console.
    "get_overview": _OVERSIGHT,
    "get_dead_letters": _OVERSIGHT,
    "get_acts": _OVERSIGHT,
    "get_audit": _OVERSIGHT,
    # What belongs to the caller.
    **dict.fromkeys(("get_watch_list", "watch_item", "unwatch_item"), dict.fromkeys(Role, Reach.OWN)),
    "list_own_bids": {Role.BIDDER: Reach.OWN},
    "list_items_of_seller": _OWN_ITEMS | _AUDITORS,
    "get_rulings": _OVERSIGHT,
    # Signing in on the pages.
    "get_me": dict.fromkeys(Role, Reach.OWN),
    "make_sign_in_code": dict.fromkeys(Role, Reach.OWN),
    "sign_in": _EVERYBODY,
    # Probes.
    "get_health": _EVERYBODY,
    "get_readiness": _EVERYBODY,
    "get_metrics": _EVERYBODY,
}
"""Who may call what, by the name of a route, which is that of its function, and its operationId in OpenAPI."""

PAGES: Final = frozenset(
    {
        *("catalogue_page", "sell_page", "item_page", "sign_in_page", "selling_page", "ops_page", "docs_page", "redoc"),
        *("static_file", "favicon", "config", "image_file"),
        # The framework's own document, and ours in front of it.
        *("openapi", "tell"),
    }
)
"""Routes that are no calls: files, the same for everybody."""


class Permit(msgspec.Struct, frozen=True):
    """What the caller of one request may do.

    Attributes:
        principal: who calls; None where that is not known, and does not matter.
        reach: how far it goes.
        account: who is charged for what the request holds beyond its first unit.
    """

    principal: Principal | None
    reach: Reach
    account: Account = FREE

    @property
    def own_id(self) -> str | None:
        """The only user id in whose name the caller may act; None where there is no such bound."""
        return self.principal.user_id if self.principal is not None and self.reach is Reach.OWN else None

    def is_over(self, now_s: float) -> bool:
        """Whether the caller's token is no longer good, at this Unix time."""
        return self.principal is not None and now_s >= self.principal.expires_s

    def user(self, said: str | None, member: str) -> str | None:
        """The user in whose name the call is: the one whom ``member`` of the request names, or the caller.

        Raises:
            Forbidden: it names somebody else.
        """
        own = self.own_id
        if own is None or said == own:
            return said
        if said is not None:
            raise Forbidden(f"{member} must be {own!r}, as whom you are signed in; it may be left out")
        return own

    def actor(self, said: str | None, default: str) -> str:
        """Who does it, for the audit: the caller, where it is known.

        Raises:
            Forbidden: the request names somebody else.
        """
        if self.principal is None:
            return default if said is None else said
        if said is not None and said != self.principal.user_id:
            raise Forbidden(f"by must be {self.principal.user_id!r}, as whom you are signed in; it may be left out")
        return self.principal.user_id

    def require_seller(self, seller_id: str | None) -> None:
        """Raises Forbidden where the caller may not act on an item of this seller."""
        own = self.own_id
        if own is not None and seller_id != own:
            raise Forbidden("this item is sold by somebody else")


_OPEN: Final = Permit(None, Reach.ANY)


class Access:
    """Says who may call what."""

    def __init__(self, principals: Principals | None) -> None:
        """``principals``: None with ``AUTH_MODE=open``."""
        self._principals = principals

    def permit(self, call: str, headers: Iterable[tuple[bytes, bytes]], account: Account = FREE) -> Permit:
        """What the sender of these headers may do with a call, a name in the table.

        Args:
            account: that of the sender's address, which is charged already. The caller is charged one unit.

        Raises:
            Unauthenticated: a token is needed, and there is none, or one that is not believed.
            Forbidden: this caller may not.
            KeysAway: whether the token is good cannot be told now.
            RateLimited: this caller has asked for too much.
        """
        return self.permit_by(call, authorization_of(headers) if self._asks(call) else None, account)

    def permit_by(self, call: str, sent: bytes | None, account: Account = FREE) -> Permit:
        """The same by the value of the one Authorization header; ``sent`` is None where there is none."""
        if not self._asks(call):
            return _OPEN if account is FREE else Permit(None, Reach.ANY, account)
        principal = self._who(sent)
        account = account.of(principal.user_id)
        reach = reach_of(call, principal.roles)
        if reach is None:
            needed = " or ".join(role.value for role in TABLE.get(call, ()) if role is not None)
            raise Forbidden(f"this needs the role {needed}" if needed else "nobody may do this")
        return Permit(principal, reach, account)

    def _asks(self, call: str) -> bool:
        """Whether it matters who calls."""
        return self._principals is not None and NOBODY not in TABLE.get(call, ())

    def is_watcher(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether the sender of these headers is somebody whom the platform's state may be told: an operator or an
        auditor. False where that is not known."""
        if self._principals is None:
            return False
        try:
            return not WATCHERS.isdisjoint(self.caller(headers).roles)
        except (Unauthenticated, KeysAway):
            return False

    def is_over(self, permit: Permit, now_s: float) -> bool:
        """Whether an earlier permit no longer holds, at this Unix time: the caller's token is expired or revoked, or
        its key was withdrawn."""
        if permit.is_over(now_s):
            return True
        if self._principals is None or permit.principal is None:
            return False
        try:
            self._principals.check_revoked(permit.principal)
        except (Unauthenticated, KeysAway):
            return True
        return not self._principals.is_vouched(permit.principal)

    def check_again(self, permit: Permit) -> None:
        """Check a caller again who was let in by the head of a request and then took time over its body. Raises as
        :meth:`permit`, but charges nothing."""
        if self._principals is not None and permit.principal is not None:
            self._principals.check_again(permit.principal)

    def caller(self, headers: Iterable[tuple[bytes, bytes]]) -> Principal:
        """Who calls, with ``AUTH_MODE=jwt``. Raises Unauthenticated and KeysAway."""
        return self._who(authorization_of(headers))

    def may_believe(self, token: bytes) -> bool:
        """Whether a request with this token may be believed: also where that cannot be told now."""
        if self._principals is None:
            return True
        try:
            self._principals.who(b"Bearer " + token)
        except Unauthenticated:
            return False
        except KeysAway:
            return True
        return True

    def _who(self, sent: bytes | None) -> Principal:
        assert self._principals is not None
        if sent is None:
            raise Unauthenticated("this needs a token, as Authorization: Bearer <token>", had_token=False)
        return self._principals.who(sent)


@cache
def reach_of(call: str, roles: frozenset[Role]) -> Reach | None:
    """How far somebody of these roles may go with a call; None where they may not call it."""
    row = TABLE.get(call, {})
    reaches = {row[role] for role in roles if role in row}
    return Reach.ANY if Reach.ANY in reaches else Reach.OWN if reaches else None


async def check_access(request: Request) -> None:
    """The dependency of every route of the application: nothing runs without its row of the table."""
    access: Access = request.state.context.access
    name = getattr(request.scope.get("route"), "name", "")
    # Its address was charged at the door.
    permit = access.permit(name, request.headers.raw, request.state.account)
    request.state.permit = permit
    facts = request_facts.get()
    if facts is not None and permit.principal is not None:
        facts["principal"] = permit.principal.user_id
    if facts is not None and (item_id := request.path_params.get("item_id")):
        facts["item"] = item_id


def permit_of(request: Request) -> Permit:
    """The permit that :func:`check_access` has found."""
    permit = request.state.permit
    assert isinstance(permit, Permit)
    return permit
