"""No secret is in a log: real services with secrets that nothing else has, made to complain about everything."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from pathlib import Path

import httpx2 as httpx
import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from infrastructure.local.servers.ports import free_ports
from infrastructure.local.services import ALL_SERVICES, API_GATEWAY, BROADCAST_SERVICE
from infrastructure.local.signing_key import signed_token, signing_key
from tests.stack import StackFactory
from tests.waiting import eventually

JSON = {"content-type": "application/json"}
pytestmark = pytest.mark.asyncio(loop_scope="module")


def canary(name: str) -> str:
    return f"canary-{name}-{secrets.token_hex(16)}"


def logs_of(data_dir: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in (data_dir / "logs").iterdir())


async def test_no_secret_is_in_a_log(start_stack: StackFactory) -> None:
    kept = {name: canary(name.lower()) for name in ("FEED_TOKEN_SECRET", "ALIAS_SECRET")}
    env = kept | {"AUTH_MODE": "jwt", "LOG_LEVEL": "DEBUG", "LOG_FORMAT": "json"}
    stack = await start_stack(services=ALL_SERVICES, env=env)
    key = signing_key(stack.data_dir)
    good = signed_token(key, "ann", ["bidder", "operator", "seller"], ttl_s=600, environment={})
    expired = signed_token(key, "ann", ["bidder"], ttl_s=-600, environment={})
    foreign = jwt.encode({"sub": "ann"}, "s" * 32, algorithm="HS256")
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, headers=JSON, timeout=30) as http:
        for token in (good, expired, foreign, f"{good}x", "canary.of.nobody"):
            headers = {"authorization": f"Bearer {token}", "cookie": f"token={token}"}
            for path in ("/api/v1/items", f"/api/v1/items?token={token}", f"/api/v1/items/{token[:60]}", "/metrics"):
                await http.get(path, headers=headers)
            for body in (b"{", b'{"amount":5}', token.encode(), b"\xff"):
                for path in ("/api/v1/items/lot/bid", "/api/v1/items", "/api/v1/bids:batch", "/api/v1/feed-token"):
                    await http.post(f"{path}?access_token={token}", content=body, headers=headers)
        feed_token = (
            await http.post("/api/v1/feed-token", json={}, headers={"authorization": f"Bearer {good}"})
        ).json()["token"]
        made = await http.post(
            "/api/v1/items", json={"id": "lot", "name": "x"}, headers={"authorization": f"Bearer {good}"}
        )
        assert made.status_code == 201, made.text
    for url in (stack.urls.gateway_url, stack.urls.broadcast_url):
        for path in ("/api/v1/bids", "/ws/items/lot", f"/ws/items/lot?token={feed_token}", f"/ws?token={good}"):
            headers = {"authorization": f"Bearer {good}"}
            try:
                async with connect(
                    url.replace("http", "ws", 1) + path, additional_headers=headers, proxy=None
                ) as socket:
                    await socket.send(json.dumps({"op": "authenticate", "token": feed_token}))
                    await socket.send(json.dumps({"op": "authenticate", "token": f"{feed_token}x"}))
                    await asyncio.wait_for(socket.recv(), 2)
            except (WebSocketException, OSError, TimeoutError):
                continue
    # Failures are logged with their causes.
    await stack.stop_process("nats")

    def is_told() -> bool:
        return all("nats: disconnected from" in stack.processes[each].spec.log.read_text() for each in ALL_SERVICES)

    await eventually(is_told, "each service says that NATS is away", seconds=60)
    text = logs_of(stack.data_dir)
    own = [line for line in text.splitlines() if line.startswith('{"time"')]
    assert own, "the services write JSON"
    assert all({"time", "level", "logger", "message"} <= json.loads(line).keys() for line in own)
    signatures = [token.rpartition(".")[2] for token in (good, expired, foreign, feed_token)]
    for secret in (*kept.values(), *signatures, good, feed_token, "canary.of.nobody"):
        assert secret not in text


@pytest.mark.parametrize("module", [API_GATEWAY, BROADCAST_SERVICE])
async def test_no_password_of_a_server_is_told_when_it_is_away(start_stack: StackFactory, module: str) -> None:
    stack = await start_stack(services=())
    password = canary("password")
    ports = free_ports(4)
    env = stack.service_env | {
        "REDIS_URL": f"redis://ann:{password}@127.0.0.1:{ports[0]}/0",
        "NATS_URL": f"nats://ann:{password}@127.0.0.1:{ports[1]}",
        "POSTGRES_URL": f"postgresql://ann:{password}@127.0.0.1:{ports[2]}/bidding",
        "GATEWAY_PORT": str(ports[3]),
        "BROADCAST_PORT": str(ports[3]),
        "LOG_LEVEL": "DEBUG",
        "LOG_FORMAT": "json",
    }
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", module), env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert child.stdout is not None
    said = b""
    try:
        async with asyncio.timeout(60):
            while said.count(b"refused") < 2 and (more := await child.stdout.read(65_536)):
                said += more
    finally:
        child.terminate()
        rest, _ = await asyncio.wait_for(child.communicate(), 60)
    lines = (said + rest).decode(errors="replace")
    assert "refused" in lines, "it complains of the servers"
    assert password not in lines
