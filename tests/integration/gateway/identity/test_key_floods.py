"""An issuer whose keys the gateway fetches: floods of tokens that name unknown keys, or that are no good at all."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2 as httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from infrastructure.local.services import API_GATEWAY
from tests.stack import StackFactory
from tests.unit.shared.identity.issuing import AUDIENCE, ISSUER, claims, jwk_of, jwks

JSON = {"content-type": "application/json"}
pytestmark = pytest.mark.asyncio(loop_scope="module")

FLOOD = 300


class Issuer:
    """Publishes one key, and counts how often it is asked for it."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.asked = 0
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        body = jwks(jwk_of(self.key, "one"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    def token(self, kid: str = "one", algorithm: str = "ES256") -> str:
        key = self.key if algorithm == "ES256" else "s" * 32
        return jwt.encode(claims(), key, algorithm=algorithm, headers={"kid": kid})


@asynccontextmanager
async def issuing() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    server = await asyncio.start_server(issuer.answer, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
    async with server:
        yield issuer


async def test_row_24_a_flood_of_bad_tokens_costs_a_fetch_now_and_then(start_stack: StackFactory) -> None:
    async with issuing() as issuer:
        env = {"AUTH_MODE": "jwt", "AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE, "AUTH_JWKS_URL": issuer.url}
        stack = await start_stack(services=(API_GATEWAY,), env=env | {"GATEWAY_ADDRESS_RATE_MAX": "0"})
        async with httpx.AsyncClient(base_url=stack.urls.gateway_url, headers=JSON, timeout=30) as http:

            async def status(token: str) -> int:
                headers = {"authorization": f"Bearer {token}"}
                answer = await http.post("/api/v1/items/lot/bid", content=json.dumps({"amount": 1}), headers=headers)
                return answer.status_code

            good = issuer.token()
            assert await status(good) == 404, "who it is is known; there is no such item"
            before = issuer.asked
            claim, none = issuer.token(), jwt.encode(claims(), "", algorithm="none")
            for _ in range(FLOOD // 50):
                wave = [
                    *(issuer.token(secrets.token_hex(8)) for _ in range(20)),
                    *(issuer.token(secrets.token_hex(8), "HS256") for _ in range(10)),
                    *(f"{claim[:-8]}{secrets.token_hex(4)}" for _ in range(10)),
                    *([none] * 5),
                    *(jwt.encode(claims(aud="another"), issuer.key, "ES256", {"kid": "one"}) for _ in range(5)),
                ]
                answers = await asyncio.gather(*map(status, wave))
                # 503: the key that is named is being looked for, once.
                assert set(answers) <= {401, 503}
                assert await status(good) == 404, "who is known is believed meanwhile"
            # At the most one in ten seconds.
            assert issuer.asked - before <= 3
