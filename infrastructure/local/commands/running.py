"""The gateway that a command talks to: that of `bidding up`, or another one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import httpx2 as httpx
import msgspec

from infrastructure.local.commands.failing import Failure, NobodyToAsk
from infrastructure.local.commands.options import data_dir_option, http_url
from infrastructure.local.state import RunRecord, run_path
from infrastructure.local.terminal import no_platform

Command = TypeVar("Command", bound=Callable[..., Any])
_TIMEOUT_S: Final = 30.0


def gateway_options(command: Command) -> Command:
    """`--data-dir` and `--gateway-url`, for :func:`gateway_of`."""
    url = click.option(
        "--gateway-url",
        envvar="GATEWAY_URL",
        show_envvar=True,
        callback=http_url,
        help="Another platform than that of `bidding up`.",
    )
    return data_dir_option(url(command))


def token_headers() -> dict[str, str]:
    """The headers that send the token in BIDDING_TOKEN, for a platform that demands one."""
    token = os.environ.get("BIDDING_TOKEN")
    return {"authorization": f"Bearer {token}"} if token else {}


def gateway_of(data_dir: Path, gateway_url: str | None) -> str:
    """The address to use.

    Raises:
        NobodyToAsk: none is up here, and none was named.
    """
    if gateway_url:
        return gateway_url
    record = RunRecord.read(run_path(data_dir))
    is_up = record is not None and record.phase == "ready" and record.supervisor.find() is not None
    if not is_up or record is None or "api_gateway" not in record.processes:
        raise NobodyToAsk(no_platform(data_dir))
    return record.urls["gateway_url"]


def ask_gateway(
    method: str,
    url: str,
    path: str,
    body: Any = None,
    *,
    media_type: str = "",
    idempotency_key: str | None = None,
    **parameters: str | None,
) -> str:
    """The text of the gateway's answer.

    ``body``: sent as JSON, or unchanged as bytes of a ``media_type``. ``idempotency_key``: the key under which the
    gateway knows a repetition. ``parameters``: of the address; those that are None are left out.

    Raises:
        Failure: nobody answers, or the answer is a refusal.
    """
    content = None if body is None else body if media_type else msgspec.json.encode(body)
    headers = {} if body is None else {"content-type": media_type or "application/json"}
    if idempotency_key is not None:
        headers["idempotency-key"] = idempotency_key
    query = {name: value for name, value in parameters.items() if value is not None}
    try:
        # A proxy in the environment is meant for the internet, not for this.
        with httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False, headers=token_headers()) as client:
            answer = client.request(method, path, content=content, params=query, headers=headers)
    except httpx.TransportError as error:
        detail = str(error) or type(error).__name__
        raise NobodyToAsk(f"Nothing answers at {url} ({detail}). Is the platform up?") from error
    if answer.is_success:
        return answer.text
    try:
        told = msgspec.json.decode(answer.content)
        detail = f"{told['detail']} ({told['code']})"
    except (msgspec.DecodeError, KeyError, TypeError):
        detail = f"{url} answers with status {answer.status_code}; is it a gateway?"
    raise Failure(detail)
