"""The newest messages under many subjects of the event stream, in one question where that is sound.

NATS from 2.11 on answers for up to a thousand subjects at once, and any replica of the stream answers. A replica that
lags does not have the newest messages yet, so a stream with replicas is asked subject by subject: then its leader
answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.js.api import Header

from shared import names
from shared.streams.reader import last_id

SUBJECTS_MAX: Final = 512
"""Subjects of one question. The server takes 1,024."""
_ALONE_AT_ONCE: Final = 16
_DIRECT: Final = f"$JS.API.DIRECT.GET.{names.STREAM}"
_INFO: Final = f"$JS.API.STREAM.INFO.{names.STREAM}"
_STATUS: Final = "Status"
_END: Final = "204"
_NOTHING: Final = "404"


class _Config(msgspec.Struct):
    num_replicas: int = 0
    allow_direct: bool = False


class _Info(msgspec.Struct):
    config: _Config = msgspec.field(default_factory=_Config)


_info_decoder: Final = msgspec.json.Decoder(_Info)


async def last_ids(client: Client, subjects: Sequence[str], *, timeout_s: float) -> dict[str, str]:
    """The Nats-Msg-Id of the last message under each of these subjects, '' where it has none; without those under which
    there is no message.

    Args:
        subjects: without wildcards.
        timeout_s: bound of each question.

    Raises:
        nats.errors.Error, OSError, TimeoutError: JetStream cannot be asked now.
    """
    found: dict[str, str] = {}
    together = len(subjects) > 1 and await _has_one_copy(client, timeout_s)
    for at in range(0, len(subjects), SUBJECTS_MAX):
        part = subjects[at : at + SUBJECTS_MAX]
        answer = await _together(client, part, timeout_s) if together else None
        found |= await _alone(client, part, timeout_s) if answer is None else answer
    return found


async def _has_one_copy(client: Client, timeout_s: float) -> bool:
    try:
        answer = await client.request(_INFO, timeout=timeout_s)
    except NoRespondersError:
        return False
    config = _info_decoder.decode(answer.data).config
    return config.allow_direct and config.num_replicas == 1


async def _together(client: Client, subjects: Sequence[str], timeout_s: float) -> dict[str, str] | None:
    """None where the server does not answer such a question, or not wholly."""
    found: dict[str, str] = {}
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    try:
        await client.publish(_DIRECT, msgspec.json.encode({"multi_last": subjects}), reply=inbox)
        async with asyncio.timeout(timeout_s):
            while True:
                message = await answers.next_msg(timeout=timeout_s)
                headers = message.headers or {}
                status = headers.get(_STATUS)
                if status is None:
                    found[headers["Nats-Subject"]] = headers.get(Header.MSG_ID, "")
                elif status == _END:
                    return found if headers.get("Nats-Num-Pending", "0") == "0" else None
                else:
                    return {} if status == _NOTHING else None
    finally:
        await answers.unsubscribe()


async def _alone(client: Client, subjects: Sequence[str], timeout_s: float) -> dict[str, str]:
    jetstream = client.jetstream()
    turns = asyncio.Semaphore(_ALONE_AT_ONCE)

    async def ask(subject: str) -> str | None:
        async with turns, asyncio.timeout(timeout_s):
            return await last_id(jetstream, subject)

    answers = await asyncio.gather(*map(ask, subjects))
    return {subject: answer for subject, answer in zip(subjects, answers, strict=True) if answer is not None}
