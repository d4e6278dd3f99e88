"""The newest messages of many subjects: one question where the stream has one copy; otherwise its leader is asked."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from nats.errors import NoRespondersError
from nats.js.errors import NotFoundError

from shared import names
from shared.streams.last_ids import SUBJECTS_MAX, last_ids

DIRECT = f"$JS.API.DIRECT.GET.{names.STREAM}"


class Server:
    """NATS with messages under some subjects; it answers many at once with ``end``, ``short`` of them left out."""

    def __init__(self, config: dict[str, Any] | None, **messages: str) -> None:
        self._config = config
        self._messages = messages
        self.end: dict[str, str] = {"Status": "204", "Nats-Num-Pending": "0"}
        self.infos = 0
        self.together: list[int] = []
        self.alone: list[str] = []
        self.at_once = self.at_once_max = 0
        self.inboxes = 0

    async def request(self, subject: str, **_: float) -> Any:
        assert subject == f"$JS.API.STREAM.INFO.{names.STREAM}"
        self.infos += 1
        if self._config is None:
            raise NoRespondersError
        return SimpleNamespace(data=msgspec.json.encode({"config": self._config, "state": {}}))

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def subscribe(self, inbox: str) -> Server:
        self.inboxes += 1
        self._answers: list[dict[str, str]] = []
        return self

    async def publish(self, subject: str, payload: bytes, *, reply: str) -> None:
        assert (subject, reply) == (DIRECT, "_INBOX.x")
        asked = msgspec.json.decode(payload)["multi_last"]
        self.together.append(len(asked))
        if self.end["Status"] == "204":
            self._answers = [
                {"Nats-Subject": each, "Nats-Msg-Id": self._messages[each]} for each in asked if each in self._messages
            ]
        self._answers.append(self.end)

    async def next_msg(self, **_: float) -> Any:
        return SimpleNamespace(headers=self._answers.pop(0))

    async def unsubscribe(self) -> None:
        self.inboxes -= 1

    def jetstream(self) -> Server:
        return self

    async def get_last_msg(self, stream: str, subject: str) -> Any:
        self.alone.append(subject)
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if subject not in self._messages:
            raise NotFoundError
        return SimpleNamespace(headers={"Nats-Msg-Id": self._messages[subject]})


ONE_COPY = {"num_replicas": 1, "allow_direct": True}


async def ask(server: Server, *subjects: str) -> dict[str, str]:
    return await last_ids(cast(Any, server), subjects, timeout_s=5)


async def test_a_stream_with_one_copy_is_asked_once_for_all() -> None:
    server = Server(ONE_COPY, a="s01:1:1", c="s01:1:3")
    assert await ask(server, "a", "b", "c") == {"a": "s01:1:1", "c": "s01:1:3"}
    assert (server.together, server.alone, server.inboxes) == ([3], [], 0)


@pytest.mark.parametrize(
    "config",
    [{"num_replicas": 3, "allow_direct": True}, {"num_replicas": 1}, {"num_replicas": 1, "allow_direct": False}, None],
    ids=["three copies", "an older server", "no direct answers", "nobody tells"],
)
async def test_any_other_is_asked_subject_by_subject(config: dict[str, Any] | None) -> None:
    """A replica that lags would say that there is no such item, and a seller would open it a second time."""
    server = Server(config, a="s01:1:1", c="s01:1:3")
    assert await ask(server, "a", "b", "c") == {"a": "s01:1:1", "c": "s01:1:3"}
    assert (server.together, sorted(server.alone)) == ([], ["a", "b", "c"])


@pytest.mark.parametrize(
    "end",
    [{"Status": "204", "Nats-Num-Pending": "2"}, {"Status": "408"}, {"Status": "413"}],
    ids=["not all of it", "an older server", "too many"],
)
async def test_an_answer_that_is_not_whole_is_none(end: dict[str, str]) -> None:
    server = Server(ONE_COPY, a="s01:1:1", c="s01:1:3")
    server.end = end
    assert await ask(server, "a", "b", "c") == {"a": "s01:1:1", "c": "s01:1:3"}
    assert (len(server.alone), server.inboxes) == (3, 0)


async def test_that_there_is_no_message_is_an_answer() -> None:
    server = Server(ONE_COPY, a="s01:1:1")
    server.end = {"Status": "404"}
    assert await ask(server, "b", "c") == {}
    assert server.alone == []


async def test_however_many_are_asked_for_none_is_left_out_and_no_question_is_too_long() -> None:
    subjects = [f"s{number}" for number in range(2 * SUBJECTS_MAX + 1)]
    messages = {subject: f"s01:1:{number}" for number, subject in enumerate(subjects)}
    server = Server(ONE_COPY, **messages)
    assert await ask(server, *subjects) == messages
    assert server.together == [SUBJECTS_MAX, SUBJECTS_MAX, 1]
    server = Server({"num_replicas": 3, "allow_direct": True}, **messages)
    assert await ask(server, *subjects) == messages
    assert server.at_once_max <= 16


async def test_of_one_subject_the_leader_is_asked_at_once() -> None:
    server = Server(ONE_COPY, a="s01:1:1")
    assert await ask(server, "a") == {"a": "s01:1:1"}
    assert (server.infos, server.alone) == (0, ["a"])
