"""`bidding api-keys`: the archival worker's command, with the secret of the data directory."""

from __future__ import annotations

import os
from pathlib import Path

import click

from infrastructure.local.commands.archive.worker import acting, acting_flags, run_worker, server_options
from infrastructure.local.commands.failing import Failure
from infrastructure.local.commands.helping import SuggestingGroup, examples
from infrastructure.local.errors import StackError
from infrastructure.local.signing_key import API_KEY_SECRET, api_key_secret
from shared.identity.tokens import Role


@click.group("api-keys", cls=SuggestingGroup)
def api_keys() -> None:
    """Make, list and revoke keys of services."""


@api_keys.command(
    epilog=examples(
        "bidding api-keys create 'Nightly import' --user house --role seller",
        "bidding api-keys create 'Market maker' --user mm-1 --role bidder --days 90",
    )
)
@click.argument("name")
@server_options
@click.option("--user", required=True, help="The user in whose name the service acts.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice([role.value for role in Role]),
    help="The role of the service; may be given several times.",
)
@click.option("--days", type=click.IntRange(min=1), help="Days until the key expires.")
@acting
def create(
    name: str,
    data_dir: Path,
    user: str,
    roles: tuple[str, ...],
    days: int | None,
    by: str | None,
    reason: str | None,
    **urls: str | None,
) -> None:
    """Make a key for the service called NAME. The key is shown only once.

    The service sends it to `POST /api/v1/token`, as `Authorization: ApiKey <key>`, and gets a token for ten minutes.
    """
    if not os.environ.get(API_KEY_SECRET) and not data_dir.is_dir():
        raise Failure(f"No platform has its data in {data_dir}: start one there, or say --data-dir.")
    try:
        secret = os.environ.get(API_KEY_SECRET) or api_key_secret(data_dir)
    except StackError as error:
        raise Failure(str(error)) from error
    arguments = ["api-keys", "create", "--user", user, *(part for role in roles for part in ("--role", role))]
    if days is not None:
        arguments += ["--days", str(days)]
    run_worker([*arguments, *acting_flags(by, reason), "--", name], data_dir, urls, {API_KEY_SECRET: secret})


@api_keys.command("list", epilog=examples("bidding api-keys list", "bidding api-keys list --all --json"))
@server_options
@click.option("--all", "with_ended", is_flag=True, help="Also show revoked and expired keys.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def list_keys(data_dir: Path, with_ended: bool, as_json: bool, **urls: str | None) -> None:
    """Show what is known of the keys, newest first. The keys themselves are stored nowhere."""
    flags = {"--all": with_ended, "--json": as_json}
    run_worker(["api-keys", "list", *(flag for flag, given in flags.items() if given)], data_dir, urls)


@api_keys.command(epilog=examples("bidding api-keys revoke 3kTq0bYw81Xa --reason 'It was in a log'"))
@click.argument("key_id")
@server_options
@acting
def revoke(key_id: str, data_dir: Path, by: str | None, reason: str | None, **urls: str | None) -> None:
    """Revoke the key with this KEY_ID.

    It ends the tokens that were given for it, too, within seconds and everywhere. `bidding token revoke USER` ends
    those of all keys of a user.
    """
    run_worker(["api-keys", "revoke", *acting_flags(by, reason), "--", key_id], data_dir, urls)
