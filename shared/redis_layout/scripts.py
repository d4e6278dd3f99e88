"""Lua scripts: how their files become one text, and how Redis is asked to run it.

Nothing here is repeated, with one exception: a NOSCRIPT answer says that the script did not run, so the call is made
again with the script's text, which loads it too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha1
from itertools import repeat
from pathlib import Path
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from shared.clients.cluster.client import ClusterClient
from shared.redis_layout.keys import shard_of_key
from shared.redis_layout.limits import IN_SCRIPTS

_SHARED: Final = Path(__file__).parent / "lua"
_INCLUDE: Final = re.compile(r"^---@include (\w+)$", re.MULTILINE)
_BODY: Final = "---@body\n"
_LIMIT: Final = re.compile(r"^---@limit (\w+)$", re.MULTILINE)

CALLS_TOGETHER_MAX: Final = 64
"""The most calls that run as one script. Redis does nothing else meanwhile, for a millisecond or two."""

Argument = str | bytes | int | float
Call = tuple[Sequence[str | bytes], Sequence[Argument]]
"""The keys and the arguments of one call."""


@dataclass(frozen=True)
class Script:
    """A script's text and the digest by which Redis knows it."""

    text: str
    sha: str

    @classmethod
    def read(cls, path: Path, *, libraries: Sequence[str] = ()) -> Script:
        """The script in a file, after the texts of its libraries: ``lib/<library>.lua`` beside it, or what all services
        have in ``shared/redis_layout/lua``.

        A line ``---@include <library>`` is replaced by that library's text, and a line ``---@limit <name>`` by a local
        variable with the bound of that name (:mod:`shared.redis_layout.limits`).

        Raises:
            OSError: there is no such file.
            KeyError: there is no such bound.
        """

        def library(name: str) -> str:
            of_its_own = path.parent / "lib" / f"{name}.lua"
            return (of_its_own if of_its_own.exists() else _SHARED / f"{name}.lua").read_text()

        text = _INCLUDE.sub(lambda found: library(found[1]), path.read_text())
        text = "\n".join([*map(library, libraries), text])
        text = _LIMIT.sub(lambda found: f"local {found[1]} = {IN_SCRIPTS[found[1]]}", text)
        return cls.of(text)

    @classmethod
    def of(cls, text: str) -> Script:
        """The script with this text."""
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())

    async def run(self, redis: Redis, keys: Sequence[str | bytes], arguments: Sequence[Argument]) -> Any:
        """One call.

        Raises:
            RedisError, OSError, TimeoutError: it is unknown whether the script ran.
        """
        try:
            return await cast(Any, redis.evalsha(self.sha, len(keys), *keys, *arguments))
        except NoScriptError:
            return await cast(Any, redis.eval(self.text, len(keys), *keys, *arguments))

    @cached_property
    def together(self) -> Script:
        """A script that makes several calls of this one, see ``together.lua``."""
        return Script.of((_SHARED / "together.lua").read_text().replace(_BODY, self.text + "\n"))

    async def run_each(
        self, redis: Redis, calls: Sequence[Call], *, together_max: int = CALLS_TOGETHER_MAX
    ) -> list[Any]:
        """Several calls in one round trip; each is atomic, all of them together are not. Returns an answer for each,
        which may be the error of that call.

        A command of its own for each call would cost more than most of these calls do. So up to ``together_max`` of
        them are one command: fewer where a call is long, or its reply. On a cluster they are of one shard.

        Raises:
            RedisError, OSError, TimeoutError: it is unknown which calls ran. On a cluster: no node can be asked.
        """
        parts = parts_of(redis, calls, together_max)
        packed = [joined([calls[at] for at in part]) for part in parts]
        return answers_of(parts, await self.together.run_all(redis, packed))

    async def run_for_few(self, redis: Redis, calls: Sequence[Call], common: Sequence[Argument] = ()) -> dict[int, Any]:
        """Several calls in one round trip, of a script that takes several itself and tells of few (``few.lua``).

        Args:
            calls: each with as many keys and arguments as any other.
            common: the arguments that stand before those of the calls.

        Returns:
            By the index of the call what the script tells of it, which may be the error of that call.

        Raises:
            RedisError, OSError, TimeoutError: it is unknown which calls ran. On a cluster: no node can be asked.
        """
        parts = parts_of(redis, calls, CALLS_TOGETHER_MAX)
        answers = await self.run_all(redis, [beside([calls[at] for at in part], common) for part in parts])
        found: dict[int, Any] = {}
        for part, answer in zip(parts, answers, strict=True):
            if isinstance(answer, Exception):
                found.update(dict.fromkeys(part, answer))
            else:
                found.update((part[at - 1], told) for at, told in zip(answer[::2], answer[1::2], strict=True))
        return found

    async def run_all(self, redis: Redis, calls: Sequence[Call]) -> list[Any]:
        """Several calls in one round trip, each a command of its own. Returns an answer for each, which may be the
        error of that command.

        Raises:
            RedisError, OSError, TimeoutError: it is unknown which calls ran. On a cluster: no node can be asked.
        """
        if not calls:
            return []
        if len(calls) == 1 and not isinstance(redis, ClusterClient):
            # The library takes as long again for a pipeline.
            try:
                return [await self.run(redis, *calls[0])]
            except ResponseError as error:
                return [error]
        pipeline: Any = redis.pipeline(transaction=False)
        for keys, arguments in calls:
            pipeline.evalsha(self.sha, len(keys), *keys, *arguments)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        for at, answer in enumerate(answers):
            if isinstance(answer, NoScriptError):
                try:
                    answers[at] = await self.run(redis, *calls[at])
                except ResponseError as error:
                    answers[at] = error
        return answers


def parts_of(redis: Redis, calls: Sequence[Call], together_max: int) -> list[Sequence[int]]:
    """The indexes of the calls that go into one command, for each command: up to ``together_max``, on a cluster of one
    shard."""
    groups: dict[str | None, list[int]] = {}
    if isinstance(redis, ClusterClient):
        for at, (keys, _) in enumerate(calls):
            groups.setdefault(shard_of_key(keys[0]), []).append(at)
    else:
        groups[None] = list(range(len(calls)))
    return [group[at : at + together_max] for group in groups.values() for at in range(0, len(group), together_max)]


def answers_of(parts: Sequence[Sequence[int]], answers: Sequence[Any]) -> list[Any]:
    """The answer to each call, from those to the commands that its part was. A command's error is the answer to each of
    its calls."""
    found: list[Any] = [None] * sum(map(len, parts))
    for part, answer in zip(parts, answers, strict=True):
        for at, each in zip(part, repeat(answer) if isinstance(answer, Exception) else answer, strict=False):
            found[at] = each
    return found


def joined(calls: Sequence[Call]) -> Call:
    """The keys and arguments of one call of :attr:`Script.together`."""
    keys: list[str | bytes] = []
    arguments: list[Argument] = []
    for its_keys, its_arguments in calls:
        keys += its_keys
        arguments += (len(its_keys), len(its_arguments), *its_arguments)
    return keys, arguments


def beside(calls: Sequence[Call], common: Sequence[Argument]) -> Call:
    """One call of a script that takes several itself: the keys of all, and their arguments after the common ones."""
    keys = [key for its_keys, _ in calls for key in its_keys]
    return keys, [*common, *(argument for _, its_arguments in calls for argument in its_arguments)]
