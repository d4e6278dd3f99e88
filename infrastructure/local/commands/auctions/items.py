"""`bidding items`: what a seller and an operator do to items, over the HTTP API."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import click
import msgspec
from typing_extensions import override

from infrastructure.local.commands.failing import Failure
from infrastructure.local.commands.helping import SuggestingGroup, examples
from infrastructure.local.commands.running import ask_gateway, gateway_of, gateway_options

Command = TypeVar("Command", bound=Callable[..., Any])

_decoder: Final = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_IMAGE_TYPES: Final = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
EXIT_CODES: Final = "Exit codes: 0 done, 1 refused, 2 no platform is up."


class Amount(click.ParamType[msgspec.Raw]):
    """A number of which every digit is kept."""

    name = "amount"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> msgspec.Raw:
        try:
            amount = Decimal(value)
        except InvalidOperation:
            amount = Decimal("NaN")
        if not amount.is_finite():
            self.fail(f"{value!r} is no amount such as 12.50", param, ctx)
        return msgspec.Raw(f"{amount:f}".encode())


class _Length(click.ParamType[int]):
    """Seconds, or with a unit: 90s, 15m, 2h, 7d."""

    name = "length"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d{1,9})([smhd]?)", str(value))
        if found is None:
            self.fail(f"{value!r} is no length of time such as 90s, 15m, 2h or 7d", param, ctx)
        return int(found[1]) * _UNITS_S[found[2] or "s"]


class _SoftClose(click.ParamType[dict[str, int]]):
    """TRIGGER/EXTEND, each a length of time."""

    name = "trigger/extend"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, int]:
        trigger, slash, extend = str(value).partition("/")
        if not slash:
            self.fail(f"{value!r} is no soft close such as 2m/5m", param, ctx)
        length = _Length()
        return {"trigger_s": length.convert(trigger, param, ctx), "extend_s": length.convert(extend, param, ctx)}


class _Increment(click.ParamType[dict[str, Any]]):
    """An amount, a percentage, or the word ladder."""

    name = "increment"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        if value == "ladder":
            return {"kind": "ladder"}
        kind = "percent" if str(value).endswith("%") else "flat"
        return {"kind": kind, "value": Amount().convert(str(value).removesuffix("%"), param, ctx)}


@click.group(cls=SuggestingGroup)
def items() -> None:
    """Create items; pause, extend, cancel them; strike bids."""


@items.command(
    epilog=examples(
        "bidding items create 'Desk lamp' --id lamp --start-price 5 --ends-in 1h",
        "bidding items create Vase --reserve 200 --increment 5% --soft-close 2m/5m",
        "bidding items create Clock --image front.jpg --image back.jpg",
        then=EXIT_CODES,
    )
)
@click.argument("name")
@gateway_options
@click.option("--id", "id", help="The item's id in addresses; by default the gateway makes one.")
@click.option("--description", help="Plain text.")
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="FILE|URL",
    help="A JPEG, PNG or WebP file to upload, or an address; may be repeated.",
)
@click.option("--currency", help="A code of ISO 4217; by default USD.")
@click.option("--seller", "seller_id", metavar="USER", help="The seller, who may not bid on the item.")
@click.option("--start-price", type=Amount(), help="The minimum for the first bid.")
@click.option("--reserve", "reserve_price", type=Amount(), help="Below this hidden price the item is not sold.")
@click.option("--buy-now", "buy_now_price", type=Amount(), help="A bid of this amount ends the auction at once.")
@click.option("--increment", type=_Increment(), help="An amount, such as 0.50; a share, such as 5%; or ladder.")
@click.option("--ends-in", "duration_s", type=_Length(), help="Time until the end, such as 90s, 15m, 2h or 7d.")
@click.option("--end-time", help="The end by RFC 3339, such as 2030-01-31T18:00:00Z.")
@click.option("--start-time", help="The start by RFC 3339; by default now.")
@click.option("--approval-required", is_flag=True, default=None, help="Only approved bidders may bid on the item.")
@click.option("--soft-close", type=_SoftClose(), help="Such as 2m/5m: a bid in the last 2 min moves the end to 5 min.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole item, for programs.")
def create(data_dir: Path, gateway_url: str | None, as_json: bool, images: tuple[str, ...], **terms: Any) -> None:
    """Put an item called NAME on sale."""
    url = gateway_of(data_dir, gateway_url)
    if images:
        terms["image_urls"] = [_uploaded(url, image) for image in images]
    told = ask_gateway("POST", url, "/api/v1/items", {k: v for k, v in terms.items() if v is not None})
    if as_json:
        click.echo(told)
    else:
        item = msgspec.json.decode(told)
        click.echo(f"{item['id']} is {item['status']}: {url}/items/{quote(item['id'])}")


@items.command(
    "upload",
    epilog=examples("bidding items upload front.jpg back.jpg", then=EXIT_CODES),
)
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@gateway_options
def upload(files: tuple[Path, ...], data_dir: Path, gateway_url: str | None) -> None:
    """Upload images and print their addresses.

    It prints one address per line, for the column image_urls of an import. The gateway removes an image that no item
    uses within a day.
    """
    url = gateway_of(data_dir, gateway_url)
    for file in files:
        click.echo(_uploaded(url, str(file)))


def _uploaded(url: str, image: str) -> str:
    """The address of an image: of a file, once it is uploaded; an address is taken as it is.

    Raises:
        Failure: the file cannot be read, or is not taken.
    """
    if image.startswith(("https://", "/images/")):
        return image
    path = Path(image)
    media_type = _IMAGE_TYPES.get(path.suffix.lower())
    if media_type is None:
        raise Failure(f"{image} is neither a .jpg, .png or .webp file nor an address that begins with https://")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Failure(f"{image} cannot be read: {error.strerror}") from error
    told = ask_gateway("POST", url, "/api/v1/images", content, media_type=media_type)
    return str(msgspec.json.decode(told)["url"])


def _reasons(command: Command) -> Command:
    reason = click.option("--reason", required=True, help="The reason, which everybody sees.")
    return gateway_options(
        reason(click.option("--by", metavar="USER", help="Who does this, for the archive.")(command))
    )


def _operation(name: str, help_text: str, example: str) -> None:
    @items.command(name, help=help_text, epilog=examples(f"bidding items {example}", then=EXIT_CODES))
    @click.argument("item")
    @_reasons
    def operate(item: str, reason: str, by: str | None, data_dir: Path, gateway_url: str | None) -> None:
        _operate(gateway_of(data_dir, gateway_url), item, name, reason, by)


_operation("pause", "Pause the bidding on ITEM and keep the remaining time.", "pause lamp --reason 'A question'")
_operation("resume", "Resume the bidding on ITEM.", "resume lamp --reason 'It is answered'")


@items.command(
    epilog=examples(
        "bidding items extend lamp --longer 10m --reason 'The room has asked for time'",
        "bidding items extend lamp --end-time 2030-01-31T18:00:00Z --reason 'A holiday'",
        then=EXIT_CODES,
    )
)
@click.argument("item")
@click.option(
    "--longer", "by_s", type=_Length(), help="By this time, such as 90s, 15m, 2h or 7d; at most 30 days in all."
)
@click.option("--end-time", help="To this instant instead: RFC 3339, such as 2030-01-31T18:00:00Z.")
@click.option("--key", help="A key: a repetition under the same key moves the end only once.")
@_reasons
def extend(
    item: str,
    by_s: int | None,
    end_time: str | None,
    key: str | None,
    reason: str,
    by: str | None,
    data_dir: Path,
    gateway_url: str | None,
) -> None:
    """Move the end of ITEM later, by a length of time or to an instant.

    The end never moves earlier. On a paused item the remaining time grows.
    """
    if (by_s is None) == (end_time is None):
        raise click.UsageError("Say either --longer or --end-time.")
    to = {"end_time": end_time} if by_s is None else {"by_s": by_s}
    told = _operate(gateway_of(data_dir, gateway_url), item, "extend", reason, by, key=key, **to)
    click.echo(f"It ends at {told['end_time']}.")


_operation("cancel", "Withdraw ITEM for good.", "cancel lamp --reason 'It broke'")


@items.command(
    epilog=examples("bidding items void lamp ann-1 --reason 'Entered by mistake'", then=EXIT_CODES),
)
@click.argument("item")
@click.argument("bid_id")
@_reasons
def void(item: str, bid_id: str, reason: str, by: str | None, data_dir: Path, gateway_url: str | None) -> None:
    """Strike an accepted bid on ITEM.

    The item's state is computed again from its other bids. The price may fall.
    """
    _operate(gateway_of(data_dir, gateway_url), item, f"bids/{quote(bid_id, safe='')}/void", reason, by)


def _operate(
    url: str, item: str, what: str, reason: str, by: str | None, *, key: str | None = None, **more: Any
) -> dict[str, Any]:
    """Carry out the operation, and return the item after it."""
    body = {"reason": reason} | ({} if by is None else {"by": by}) | more
    path = f"/api/v1/items/{quote(item, safe='')}/{what}"
    told = _decoder.decode(ask_gateway("POST", url, path, body, idempotency_key=key))
    click.echo(f"{told['id']} is {told['status']}, at {told['current_bid']} {told['currency']}.")
    return told
