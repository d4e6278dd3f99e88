"""`bidding token`: a token of the embedded stack, for `AUTH_MODE=jwt`, or a link that signs in on the pages."""

from __future__ import annotations

import os
from pathlib import Path

import click
import httpx2 as httpx

from infrastructure.local.commands.failing import Failure
from infrastructure.local.commands.helping import examples
from infrastructure.local.commands.options import data_dir_option
from infrastructure.local.commands.running import gateway_of
from infrastructure.local.errors import StackError
from infrastructure.local.signing_key import signed_token, signing_key
from shared import names
from shared.identity.tokens import Role

_TTL_MAX_S = 30 * 86_400


_TIMEOUT_S = 10.0


@click.command(
    "token",
    epilog=examples(
        "bidding token ann", "bidding token ann --link", "bidding token sam --role seller --role bidder --ttl 900"
    ),
)
@click.argument("user")
@data_dir_option
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice([role.value for role in Role]),
    default=(Role.BIDDER.value,),
    show_default=True,
    help="A role of USER; may be given several times.",
)
@click.option(
    "--ttl",
    "ttl_s",
    type=click.IntRange(1, _TTL_MAX_S),
    default=3_600,
    show_default=True,
    help="Seconds until the token expires.",
)
@click.option(
    "--link", "as_link", is_flag=True, help="Print an address that signs USER in on the pages, once, instead."
)
def token(user: str, data_dir: Path, roles: tuple[str, ...], ttl_s: int, as_link: bool) -> None:
    """Print a token that tells the API who USER is.

    It is for `AUTH_MODE=jwt bidding up`. Send it as `Authorization: Bearer <token>`, or paste it where a page asks for
    it. The key of the data directory signs it. Anybody who can read that file can act as anybody.
    """
    if not names.is_user_id(user):
        raise Failure("A user id is 1 to 64 characters of A-Z a-z 0-9 _ . @ -")
    if not data_dir.is_dir():
        # No platform would accept tokens that are signed with a key made here.
        raise Failure(f"No platform has its data in {data_dir}: start one there, or say --data-dir.")
    url = gateway_of(data_dir, None) if as_link else ""
    try:
        signed = signed_token(signing_key(data_dir), user, roles, ttl_s=ttl_s, environment=os.environ)
    except StackError as error:
        raise Failure(str(error)) from error
    click.echo(_link(url, signed) if as_link else signed)


def _link(url: str, signed: str) -> str:
    """An address with a code, which the platform gives for the token."""
    headers = {"authorization": f"Bearer {signed}"}
    try:
        answer = httpx.post(f"{url}/api/v1/sign-in-code", headers=headers, timeout=_TIMEOUT_S, trust_env=False)
        told = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise Failure(f"The platform at {url} gives no link: {error}") from error
    if answer.status_code != 201:
        raise Failure(f"The platform at {url} gives no link: {told.get('detail', answer.status_code)}")
    # Behind the #: browsers do not send that part to any server.
    return f"{url}/sign-in#{told['code']}"
