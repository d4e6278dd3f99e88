"""The gateway where tokens say who calls, and limits and logs are on: its settings, and bids with tokens."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Final

import jwt

from bench.clients.closed_loop import BIDDERS

_ISSUER: Final = "bench"
_SECRET: Final = secrets.token_hex(32)
_HOUR_S: Final = 3_600

GUARDED: Final[Mapping[str, str]] = {
    "AUTH_MODE": "jwt",
    "AUTH_ISSUER": _ISSUER,
    "AUTH_AUDIENCE": _ISSUER,
    "AUTH_HS256_SECRET": _SECRET,
    "ALIAS_SECRET": secrets.token_hex(32),
    "OPEN_CATALOGUE": "false",
    "OPEN_IDENTITY": "false",
    "LOG_FORMAT": "json",
    "LOG_LEVEL": "INFO",
    # They are counted at each bid, and never reached.
    "GATEWAY_CALLER_RATE_MAX": "1000000",
    "GATEWAY_ADDRESS_RATE_MAX": "1000000",
}


def _token(user_id: str, role: str) -> str:
    now_s = int(time.time())
    claims = {"iss": _ISSUER, "aud": _ISSUER, "sub": user_id, "roles": [role], "iat": now_s, "exp": now_s + _HOUR_S}
    return jwt.encode(claims, _SECRET, algorithm="HS256")


def guarded_bid_requests(item_ids: list[str]) -> Iterator[bytes]:
    """New items, and then endless bids as of :func:`bench.clients.closed_loop.bid_requests`, each with its bidder's
    token."""
    head = "host: 127.0.0.1\r\ncontent-type: application/json\r\nauthorization: Bearer "
    house = _token("house", "operator")
    for item_id in item_ids:
        body = f'{{"id":"{item_id}","name":"{item_id}"}}'
        yield f"POST /api/v1/items HTTP/1.1\r\n{head}{house}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
    tokens = [_token(f"user-{number:04d}", "bidder") for number in range(BIDDERS)]
    number = 0
    while True:
        minor, bidder = 1 + number // len(item_ids), number % BIDDERS
        item_id = item_ids[number % len(item_ids)]
        body = f'{{"user_id":"user-{bidder:04d}","amount":{minor // 100}.{minor % 100:02d}}}'
        yield (
            f"POST /api/v1/items/{item_id}/bid HTTP/1.1\r\n{head}{tokens[bidder]}\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}"
        ).encode()
        number += 1
