"""The health check of the NATS servers, with a monitor that shows what a server shows while it catches up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.aws.nats_servers import Server
from tests.tcp import serving

_LEVEL: Final = {"committed": 8_000, "applied": 8_000, "leader": "S1Nunr6R", "ever_had_leader": True}
_PLAYS_BACK: Final = _LEVEL | {"applied": 3_364}
_META: Final = {"_meta_": {"committed": 4, "applied": 4, "leader": "yrzKKRBu", "ever_had_leader": True}}

Look = dict[str, dict[str, Any]]


class Monitor:
    """The monitor of a server: what each look at the groups of its streams shows, and whether the server is well."""

    def __init__(self, *looks: Look, well: bool = True, meta: Sequence[Look] = (_META, _META)) -> None:
        self._answers = {"/raftz?acc=$G": self._shown("$G", looks), "/raftz": self._shown("$SYS", meta)}
        self._well = well

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        path = request.decode().split()[1]
        status, body = 200, "{}"
        if path in self._answers:
            left = self._answers[path]
            status, body = (200, left.pop(0)) if left else (404, "No Raft nodes returned")
        elif path == "/healthz":
            status = 200 if self._well else 503
        head = f"HTTP/1.1 {status} Told\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body.encode())
        await writer.drain()
        await reader.read()

    @staticmethod
    def _shown(account: str, looks: Sequence[Look]) -> list[str]:
        # As NATS writes it: a member a line, those of a group before those of its log and its peers.
        tail = {"wal": {"messages": 1, "last_seq": 4}, "peers": {"S1Nunr6R": {"name": "nats-0", "known": True}}}
        return [json.dumps({account: {name: group | tail for name, group in look.items()}}, indent=3) for look in looks]


async def _checked(folder: Path, monitor: Monitor, *, of: int = 3) -> bool:
    """Whether the check says that the server is well; it then says so for the rest of the server's life, by a file."""
    async with serving(monitor.answer) as port:
        server = Server(folder, 0, [[0, 0, port]] * of)
        (server.run / "nats.conf").write_text(str(server.spec.env["NATS_CONFIGURATION"]))
        # It started at this moment, so that it does not count as alone.
        (server.run / "started").write_text("9999999999")
        well = await server.is_well(pause_s=0)
        assert (server.run / "caught-up").exists() == well
        return well


@pytest.mark.parametrize(
    "looks",
    [
        pytest.param([{"S": _LEVEL}, {"S": _LEVEL}], id="it has all"),
        pytest.param([{}, {}], id="there are no streams yet"),
        pytest.param(
            [{"S": _LEVEL | {"committed": 8_003}}, {"S": _LEVEL | {"committed": 9_010, "applied": 9_001}}],
            id="messages come all the while",
        ),
    ],
)
async def test_a_server_that_has_what_its_streams_have_is_well(tmp_path: Path, looks: Sequence[Look]) -> None:
    assert await _checked(tmp_path, Monitor(*looks))


@pytest.mark.parametrize(
    "looks",
    [
        pytest.param([{"S": _PLAYS_BACK}, {"S": _PLAYS_BACK | {"applied": 7_999}}], id="it writes what it fetched"),
        pytest.param(
            [{"C": _LEVEL, "S": _PLAYS_BACK}, {"C": _LEVEL, "S": _PLAYS_BACK | {"applied": 7_999}}],
            id="of one of its groups",
        ),
        pytest.param([{"S": _LEVEL | {"catching_up": True}}, {"S": _LEVEL}], id="it was fetching at first"),
        pytest.param([{"S": _LEVEL}, {"S": _LEVEL | {"catching_up": True}}], id="it fetches again"),
        pytest.param([{"S": _LEVEL}, {"S": _LEVEL | {"committed": 8_101}}], id="it learns in between of more"),
        pytest.param([{}, {"S": _LEVEL}], id="it learns in between of a stream"),
        pytest.param([{"S": _LEVEL | {"leader": ""}}, {"S": _LEVEL}], id="it had heard of no leader"),
        pytest.param([{"S": _LEVEL}], id="it does not answer the second time"),
    ],
)
async def test_a_server_that_lacks_something_is_not_well(tmp_path: Path, looks: Sequence[Look]) -> None:
    """To NATS' own /healthz it is: that answers 200 here."""
    without = [
        {name: {key: value for key, value in group.items() if value != ""} for name, group in look.items()}
        for look in looks
    ]
    assert not await _checked(tmp_path, Monitor(*without))


async def test_a_server_that_does_not_know_all_streams_yet_is_not_well(tmp_path: Path) -> None:
    behind = {"_meta_": _META["_meta_"] | {"committed": 900}}
    assert not await _checked(tmp_path, Monitor({}, {}, meta=[behind, behind]))


@pytest.mark.parametrize("of", [1, 3])
async def test_a_server_that_nats_calls_unwell_is_not_well(tmp_path: Path, of: int) -> None:
    assert not await _checked(tmp_path, Monitor({"S": _LEVEL}, {"S": _LEVEL}, well=False), of=of)


async def test_a_single_server_has_no_log_to_look_at(tmp_path: Path) -> None:
    assert await _checked(tmp_path, Monitor(meta=()), of=1)
