"""Lua scripts: how their files become one text, and how Redis is asked to run it.

Nothing here is repeated, with one exception: a NOSCRIPT answer says that the script did not run, so the call is made
again with the script's text, which loads it too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from shared.redis_layout.limits import IN_SCRIPTS

_SHARED: Final = Path(__file__).parent / "lua"
_INCLUDE: Final = re.compile(r"^---@include (\w+)$", re.MULTILINE)
_LIMIT: Final = re.compile(r"^---@limit (\w+)$", re.MULTILINE)

Argument = str | bytes | int | float
Call = tuple[Sequence[str | bytes], Sequence[Argument]]
"""The keys and the arguments of one call."""


@dataclass(frozen=True, slots=True)
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

    async def run_each(self, redis: Redis, calls: Sequence[Call]) -> list[Any]:
        """Several calls in one round trip; each is atomic, all of them together are not. Returns an answer for each,
        which may be the error of that call.

        Raises:
            RedisError, OSError, TimeoutError: it is unknown which calls ran.
        """
        pipeline: Any = redis.pipeline(transaction=False)
        for keys, arguments in calls:
            pipeline.evalsha(self.sha, len(keys), *keys, *arguments)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        for index, answer in enumerate(answers):
            if isinstance(answer, NoScriptError):
                try:
                    answers[index] = await self.run(redis, *calls[index])
                except ResponseError as error:
                    answers[index] = error
        return answers
