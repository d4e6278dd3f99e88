"""The NATS servers of infrastructure/terraform, started for real: their template, their start command, their check."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Final

import nats
import nats.errors
import pytest
from nats.js.api import StorageType, StreamConfig
from nats.js.errors import ServiceUnavailableError

from infrastructure.local.processes import ManagedProcess
from infrastructure.local.servers.ports import HOST
from shared.permissions.accounts import Account
from tests.integration.aws.nats_servers import MODULE, SECRETS, Server, answers, begun, local, servers, stream_of
from tests.programs import running_server
from tests.waiting import eventually

_MESSAGES: Final = 8_000
_BODY: Final = b"x" * 8_192


@pytest.mark.parametrize("of", [1, 3])
async def test_a_server_that_waits_for_the_others_is_well(tmp_path: Path, of: int) -> None:
    """ECS starts the servers one after the other and replaces what is not well: the first one must not wait to be."""
    first, *_ = servers(tmp_path, of=of)
    async with running_server(first.spec):
        await answers(first.monitor, "/healthz?js-enabled-only=true", 200)
        await eventually(first.is_well)
        if of > 1:
            # And it does wait: there is no majority that JetStream could work with.
            await answers(first.monitor, "/healthz", 503)
        written = (first.run / "nats.conf").read_text()
        assert f'password: "{SECRETS["NATS_PASSWORD"]}"' in written
        assert "PASSWORD@" not in written.replace(SECRETS["NATS_ROUTE_PASSWORD"], "")
        for account in Account:
            client = await nats.connect(f"nats://{account.value}:7{account.value}@{HOST}:{first.client}")
            await client.close()
        assert (first.run / "nats.conf").stat().st_mode & 0o077 == 0
        # The passwords are on the disk that goes with the task.
        assert not (first.data / "nats.conf").exists()


def test_the_image_asks_whether_jetstream_works() -> None:
    assert "/healthz?js-enabled-only=true" in (MODULE / "Dockerfile").read_text()
    assert local("run_path") in (MODULE / "Dockerfile").read_text()


async def test_a_roll_waits_until_a_server_has_what_its_streams_have_elsewhere(tmp_path: Path) -> None:
    """Three servers and a stream on all of them; one comes back without its disk. Then all are stopped at once."""
    three = servers(tmp_path, of=3)
    processes = {each.name: ManagedProcess(each.spec) for each in three}
    last = three[2]
    try:
        await asyncio.gather(*map(begun, processes.values()))
        await asyncio.gather(*(eventually(each.is_well, each.name, seconds=60) for each in three))
        async with stream_of(three[:2]) as stream:
            await stream.add_stream(StreamConfig(name="S", subjects=["s"], storage=StorageType.FILE, num_replicas=3))
            await processes[last.name].stop()
            shutil.rmtree(last.data)
            shutil.rmtree(last.run)
            for first in range(0, _MESSAGES, 500):
                await asyncio.gather(*(stream.publish("s", _BODY) for _ in range(first, first + 500)))
            again = Server(tmp_path, 2, [[each.client, each.cluster, each.monitor] for each in three])
            processes[last.name] = ManagedProcess(again.spec)
            await begun(processes[last.name])

            async def checked() -> bool:
                well = await again.is_well()
                has = again.messages()
                assert not well or has >= _MESSAGES, f"well with {has} messages of {_MESSAGES}"
                return well

            # A check takes two seconds. Many overlap, so that one begins and ends in each moment of the catching up.
            checks = [asyncio.create_task(checked())]

            async def settled() -> bool:
                checks.append(asyncio.create_task(checked()))
                await asyncio.sleep(0.1)
                return any(each.done() and each.result() for each in checks)

            try:
                await eventually(settled, seconds=120)
            finally:
                outcomes = await asyncio.gather(*checks, return_exceptions=True)
            assert [each for each in outcomes if not isinstance(each, bool)] == []
            # From now on it is judged by itself, not by what it lacks: it alone is left, and stays well.
            assert (again.run / "caught-up").exists()
        # AWS retires all three tasks at once: what is on the tasks' own disks goes, what is on EFS stays.
        await asyncio.gather(*(process.stop() for process in processes.values()))
        for each in three:
            shutil.rmtree(each.run)
            each.run.mkdir()
        processes = {each.name: ManagedProcess(each.spec) for each in three}
        await asyncio.gather(*map(begun, processes.values()))
        await asyncio.gather(*(eventually(each.is_well, each.name, seconds=120) for each in three))
        async with stream_of(three) as stream:

            async def told() -> int | None:
                # Between two leaders of a stream nobody answers for it; a client asks again.
                with contextlib.suppress(nats.errors.TimeoutError, ServiceUnavailableError):
                    return (await stream.stream_info("S")).state.messages
                return None

            assert await eventually(told, "the stream has a leader", seconds=60) == _MESSAGES
    finally:
        await asyncio.gather(*(process.stop() for process in processes.values()))
