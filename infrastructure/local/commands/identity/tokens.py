"""`bidding token`: makes tokens of the embedded stack, and revokes tokens of any platform."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any, Final

import click
import httpx2 as httpx
import jwt
import msgspec
from typing_extensions import override

from infrastructure.local.commands.failing import Failure, NobodyToAsk
from infrastructure.local.commands.helping import SuggestingGroup, examples
from infrastructure.local.commands.identity.token import token
from infrastructure.local.commands.running import gateway_of, gateway_options, token_headers
from infrastructure.local.errors import StackError
from infrastructure.local.signing_key import signed_token, signing_key
from shared import names
from shared.identity.tokens import Role

_MAKE: Final = "make"
_TIMEOUT_S: Final = 30.0
_OWN_TTL_S: Final = 60
_OPERATOR: Final = "operator"


class _Tokens(SuggestingGroup):
    """`bidding token USER` is `bidding token make USER`."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and not set(args) & set(ctx.help_option_names):
            args = [_MAKE, *args]
        return super().parse_args(ctx, args)


@click.group(
    "token",
    cls=_Tokens,
    epilog=examples("bidding token ann", "bidding token sam --role seller", "bidding token revoke ann"),
)
def tokens() -> None:
    """Make a token, or revoke some.

    `bidding token USER` is short for `bidding token make USER`.
    """


_make = copy.copy(token)
_make.epilog = examples("bidding token make ann", "bidding token make sam --role seller --role bidder --ttl 900")
tokens.add_command(_make, _MAKE)


@tokens.command(
    epilog=examples(
        "bidding token revoke ann",
        'bidding token revoke --token "$TOKEN"',
        then="Exit codes: 0 done, 1 refused, 2 no platform is up.",
    )
)
@click.argument("user", required=False)
@gateway_options
@click.option("--token", "lost", help="Only this token, by its `jti`.")
@click.option("--reason", help="The reason, for the record: `bidding acts`.")
def revoke(user: str | None, lost: str | None, reason: str | None, data_dir: Path, gateway_url: str | None) -> None:
    """Revoke all tokens of USER that were issued until now, or a single one.

    Every gateway refuses them within seconds. It needs a token of an operator in BIDDING_TOKEN; without one it signs
    its own with the key of the data directory.
    """
    if (user is None) == (lost is None):
        raise click.UsageError("Say a USER, or --token.")
    body = {"user_id": user} if lost is None else {"token_id": _id_of(lost)}
    body |= {} if reason is None else {"reason": reason}
    if user is not None and not names.is_user_id(user):
        raise Failure("A user id is 1 to 64 characters of A-Z a-z 0-9 _ . @ -")
    url = gateway_of(data_dir, gateway_url)
    headers = token_headers() or _own_headers(data_dir)
    told = _post(url, "/api/v1/revocations", body, headers)
    whose = f"All tokens of {user} that were issued" if lost is None else f"The token {body['token_id']}, issued"
    click.echo(f"{whose} until {told['revoked_at']}: refused from now on.")


def _id_of(signed: str) -> str:
    try:
        token_id = jwt.decode(signed, options={"verify_signature": False}).get("jti")
    except jwt.PyJWTError as error:
        raise Failure(f"That is no token: {error}.") from None
    if not isinstance(token_id, str) or not names.is_token_id(token_id):
        raise Failure("This token has no `jti` by which it could be revoked: revoke those of its user.")
    return token_id


def _own_headers(data_dir: Path) -> dict[str, str]:
    if not data_dir.is_dir():
        raise Failure(f"No platform has its data in {data_dir}: start one there, say --data-dir, or set BIDDING_TOKEN.")
    roles = [Role.OPERATOR.value]
    try:
        signed = signed_token(signing_key(data_dir), _OPERATOR, roles, ttl_s=_OWN_TTL_S, environment=os.environ)
    except StackError as error:
        raise Failure(str(error)) from error
    return {"authorization": f"Bearer {signed}"}


def _post(url: str, path: str, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    try:
        # A proxy in the environment is meant for the internet, not for this.
        with httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False, headers=headers) as client:
            answer = client.post(path, json=body)
            told = msgspec.json.decode(answer.content, type=dict[str, Any])
    except httpx.TransportError as error:
        detail = str(error) or type(error).__name__
        raise NobodyToAsk(f"Nothing answers at {url} ({detail}). Is the platform up?") from error
    except msgspec.DecodeError as error:
        raise Failure(f"{url} answers with status {answer.status_code}; is it a gateway?") from error
    if not answer.is_success:
        raise Failure(f"{told.get('detail')} ({told.get('code')})")
    return told
