"""`bidding feed-token`: a token with which a bidder gets their own standing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from infrastructure.local.commands.failing import Failure
from infrastructure.local.commands.helping import examples
from infrastructure.local.commands.options import data_dir_option
from infrastructure.local.errors import StackError
from infrastructure.local.feed_secret import FEED_TOKEN_SECRET, feed_token_secret
from shared import names
from shared.feed_tokens import Identity, mint
from shared.secret_pairs import ALSO, SINCE, checked_pair

_HOURS_MAX = 24 * 365


@click.command("feed-token", epilog=examples("bidding feed-token ann", "bidding feed-token ann --maximum --hours 8"))
@click.argument("user")
@data_dir_option
@click.option("--maximum", is_flag=True, help="Also show the bidder their own maximum.")
@click.option(
    "--hours",
    type=click.FloatRange(0, _HOURS_MAX, min_open=True),
    default=1.0,
    show_default=True,
    help="Hours until the token expires.",
)
def feed_token(user: str, data_dir: Path, maximum: bool, hours: float) -> None:
    """Print a token that tells the live feed who USER is.

    It is signed with FEED_TOKEN_SECRET if that is set, else with the secret of the data directory.
    """
    if not names.is_user_id(user):
        raise Failure("A user id is 1 to 64 characters of A-Z a-z 0-9 _ . @ -")
    if not os.environ.get(FEED_TOKEN_SECRET) and not data_dir.is_dir():
        # No platform would accept tokens that are signed with a secret made here.
        raise Failure(f"No platform has its data in {data_dir}: start one there, or say --data-dir.")
    try:
        given = (os.environ.get(f"{FEED_TOKEN_SECRET}{which}", "") for which in (ALSO, SINCE))
        secret = os.environ.get(FEED_TOKEN_SECRET) or feed_token_secret(data_dir)
        secrets = checked_pair(FEED_TOKEN_SECRET, secret, *given)
    except ValueError as error:
        raise Failure(str(error)) from error
    except StackError as error:
        raise Failure(str(error)) from error
    click.echo(mint(secrets.now(), Identity(user, int(time.time() + hours * 3600), sees_maximum=maximum)))
