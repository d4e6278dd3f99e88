"""How the files of a script become one text, and what comes of commands that Redis refuses."""

from __future__ import annotations

from hashlib import sha1
from pathlib import Path
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from shared.clients.cluster.client import ClusterClient
from shared.redis_layout.limits import ACCEPTED_KEPT
from shared.redis_layout.scripts import CALLS_TOGETHER_MAX, Call, Script, beside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "state.lua").write_text("---@limit ACCEPTED_KEPT\nlocal state = KEYS[1]\n")
    return tmp_path


def test_libraries_come_first_and_limits_have_their_values(folder: Path) -> None:
    (folder / "bid.lua").write_text("return state\n")
    script = Script.read(folder / "bid.lua", libraries=["state"])
    assert script.text == f"local ACCEPTED_KEPT = {ACCEPTED_KEPT}\nlocal state = KEYS[1]\n\nreturn state\n"
    assert script.sha == sha1(script.text.encode()).hexdigest()


def test_what_all_services_have_is_included_in_its_place(folder: Path) -> None:
    (folder / "lease.lua").write_text("-- first\n---@include full\nwrite_though_full(KEYS[1])\n")
    text = Script.read(folder / "lease.lua").text
    assert text.index("-- first") < text.index("local function write_though_full") < text.rindex("write_though_full(")


@pytest.mark.parametrize(("line", "error"), [("---@include nothing", OSError), ("---@limit NOTHING", KeyError)])
def test_what_is_not_there_is_told_at_once(folder: Path, line: str, error: type[Exception]) -> None:
    (folder / "bid.lua").write_text(f"{line}\n")
    with pytest.raises(error):
        Script.read(folder / "bid.lua")


class Refusing:
    """Answers the commands in turn, of a pipeline or alone; errors are raised where the library raises them."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.pipelines = 0

    def pipeline(self, *, transaction: bool) -> Refusing:
        self.pipelines += 1
        return cast(Refusing, Pipeline(self.answers))

    async def evalsha(self, sha: str, key_count: int, *arguments: str) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Pipeline:
    def __init__(self, answers: list[Any]) -> None:
        self._answers = answers

    def evalsha(self, sha: str, key_count: int, *arguments: str) -> None:
        pass

    async def execute(self, *, raise_on_error: bool) -> list[Any]:
        return self._answers


SCRIPT = Script.of("return {}")


def calls(count: int) -> list[Call]:
    return [((f"{{s{at % 64:02}}}:cursors",), ()) for at in range(count)]


async def test_a_command_that_is_refused_alone_is_told_of_each_of_its_shards() -> None:
    refused = ResponseError("NOPERM")
    assert await SCRIPT.run_for_few(cast(Any, Refusing(refused)), calls(2)) == {0: refused, 1: refused}
    assert await SCRIPT.run_all(cast(Any, Refusing(refused)), calls(1)) == [refused]
    many = Refusing([2, b"told"], refused, [1, b"told, too"])
    found = await SCRIPT.run_for_few(cast(Any, many), calls(2 * CALLS_TOGETHER_MAX + 1))
    refused_calls = range(CALLS_TOGETHER_MAX, 2 * CALLS_TOGETHER_MAX)
    assert found == {1: b"told", 2 * CALLS_TOGETHER_MAX: b"told, too"} | dict.fromkeys(refused_calls, refused)


def test_what_is_common_to_all_calls_stands_before_their_own_arguments() -> None:
    assert beside([(["a", "b"], [1]), (["c", "d"], [2])], ["x", "y"]) == (["a", "b", "c", "d"], ["x", "y", 1, 2])


async def test_of_a_connection_that_is_lost_it_is_unknown_what_ran() -> None:
    with pytest.raises(RedisConnectionError):
        await SCRIPT.run_for_few(cast(Any, Refusing(RedisConnectionError("lost"))), calls(2))


async def test_a_cluster_is_asked_by_a_pipeline_that_knows_which_nodes_are_away() -> None:
    answers, cluster = Refusing([]), ClusterClient.__new__(ClusterClient)
    cluster.pipeline = answers.pipeline  # type: ignore[method-assign, assignment]
    assert await SCRIPT.run_for_few(cluster, calls(1)) == {}
    assert answers.pipelines == 1
