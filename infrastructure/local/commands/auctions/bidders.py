"""`bidding bidders`: who may bid, over the HTTP API."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import click
import msgspec

from infrastructure.local.commands.auctions.items import EXIT_CODES, Amount
from infrastructure.local.commands.failing import Failure
from infrastructure.local.commands.helping import SuggestingGroup, examples
from infrastructure.local.commands.running import ask_gateway, gateway_of, gateway_options

Command = TypeVar("Command", bound=Callable[..., Any])

_decoder: Final = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)


@click.group(cls=SuggestingGroup)
def bidders() -> None:
    """Approve, block and limit bidders."""


def _item(command: Command) -> Command:
    return click.option("--item", metavar="ITEM", help="Only on this item; by default on all.")(command)


def _seller(command: Command) -> Command:
    return click.option("--seller", metavar="USER", help="On all items of this seller.")(command)


def _why(command: Command) -> Command:
    reason = click.option("--reason", help="The reason, for the archive alone.")
    return gateway_options(
        reason(click.option("--by", metavar="USER", help="Who does this, for the archive.")(command))
    )


def _approval(name: str, method: str, help_text: str) -> None:
    @bidders.command(name, help=help_text, epilog=examples(f"bidding bidders {name} ann --item lamp", then=EXIT_CODES))
    @click.argument("user")
    @_item
    @_why
    def approval(user: str, item: str | None, data_dir: Path, gateway_url: str | None, **why: str | None) -> None:
        _rule(gateway_of(data_dir, gateway_url), method, _place(user, item, None), "approval", why)


def _block(name: str, method: str, help_text: str) -> None:
    @bidders.command(
        name,
        help=help_text,
        epilog=examples(f"bidding bidders {name} ann", f"bidding bidders {name} ann --seller sam", then=EXIT_CODES),
    )
    @click.argument("user")
    @_item
    @_seller
    @_why
    def block(
        user: str, item: str | None, seller: str | None, data_dir: Path, gateway_url: str | None, **why: str | None
    ) -> None:
        _rule(gateway_of(data_dir, gateway_url), method, _place(user, item, seller), "block", why)


_approval("approve", "PUT", "Let USER bid on items that require approval.")
_approval("unapprove", "DELETE", "Remove an approval of USER. Accepted bids stand.")
_block("block", "PUT", "Refuse further bids of USER. Accepted bids stand.")
_block("unblock", "DELETE", "Remove a block of USER.")


def _currency(command: Command) -> Command:
    return click.option("--currency", help="Currency of the limit over all items; by default USD.")(command)


@bidders.command(
    epilog=examples(
        "bidding bidders limit ann 500 --item lamp",
        "bidding bidders limit ann 5000 --currency EUR",
        then=EXIT_CODES,
    )
)
@click.argument("user")
@click.argument("amount", type=Amount())
@_item
@_currency
@_why
def limit(
    user: str,
    amount: msgspec.Raw,
    item: str | None,
    currency: str | None,
    data_dir: Path,
    gateway_url: str | None,
    **why: str | None,
) -> None:
    """Refuse bids of USER above AMOUNT on an item; or, over all items in a currency, bids that raise the sum of the
    leading maxima above it."""
    more = {"amount": amount} | _of_all(item, currency)
    _rule(gateway_of(data_dir, gateway_url), "PUT", _place(user, item, None), "limit", why, **more)


@bidders.command(
    epilog=examples("bidding bidders unlimit ann --item lamp", "bidding bidders unlimit ann", then=EXIT_CODES)
)
@click.argument("user")
@_item
@_currency
@_why
def unlimit(
    user: str, item: str | None, currency: str | None, data_dir: Path, gateway_url: str | None, **why: str | None
) -> None:
    """Let USER bid any amount on an item, or lead with any amount over all items in a currency."""
    why |= _of_all(item, currency)
    _rule(gateway_of(data_dir, gateway_url), "DELETE", _place(user, item, None), "limit", why)


def _of_all(item: str | None, currency: str | None) -> dict[str, Any]:
    """The currency of a limit over all items, where one was named."""
    if item is not None and currency is not None:
        raise Failure("An item has its own currency: say --item or --currency, not both.")
    return {} if currency is None else {"currency": currency}


@bidders.command(epilog=examples("bidding bidders show ann", "bidding bidders show ann --item lamp", then=EXIT_CODES))
@click.argument("user")
@_item
@_currency
@gateway_options
def show(user: str, item: str | None, currency: str | None, data_dir: Path, gateway_url: str | None) -> None:
    """Say whether USER may bid, and the spending limit over all items."""
    url, place = gateway_of(data_dir, gateway_url), _place(user, item, None)
    parameters = _of_all(item, currency)
    _tell(ask_gateway("GET", url, place))
    if item is None:
        _tell(ask_gateway("GET", url, f"{place}/limit", **parameters))


def _place(user: str, item: str | None, seller: str | None) -> str:
    """The address of a bidder: on an item, for a seller, or for all."""
    if item is not None and seller is not None:
        raise Failure("Say --item or --seller, not both.")
    above = "" if item is None else f"/items/{quote(item, safe='')}"
    above = above if seller is None else f"/sellers/{quote(seller, safe='')}"
    return f"/api/v1{above}/bidders/{quote(user, safe='')}"


def _rule(url: str, method: str, place: str, what: str, why: dict[str, str | None], **more: Any) -> None:
    said = {name: value for name, value in why.items() if value is not None}
    if method == "PUT":
        _tell(ask_gateway(method, url, f"{place}/{what}", said | more))
    else:
        _tell(ask_gateway(method, url, f"{place}/{what}", None, **said))


def _tell(text: str) -> None:
    told = _decoder.decode(text)
    if "committed" in told:
        limit, currency = told["limit"], told["currency"]
        most = f"any amount of {currency}" if limit is None else f"{told['remaining']} more of {limit} {currency}"
        click.echo(f"{told['user_id']} may lead with {most} over all items.")
        return
    where = f"on {told['item_id']}" if "item_id" in told else "on all items"
    if told.get("seller_id"):
        where = f"on all items of {told['seller_id']}"
    is_blocked = told["blocked"] or told.get("blocked_by_seller") or told.get("blocked_for_all")
    is_approved = told["approved"] or told.get("approved_for_all")
    words = ["blocked" if is_blocked else "not blocked", "approved" if is_approved else "not approved"]
    if told["approval_required"]:
        words[1] += ", which is required"
    if told.get("limit") is not None:
        words.append(f"limited to {told['limit']} {told['currency']}")
    click.echo(f"{told['user_id']} is {', '.join(words)} {where}.")
