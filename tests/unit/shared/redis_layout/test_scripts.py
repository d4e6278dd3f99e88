"""How the files of a script become one text."""

from __future__ import annotations

from hashlib import sha1
from pathlib import Path

import pytest

from shared.redis_layout.limits import ACCEPTED_KEPT
from shared.redis_layout.scripts import Script


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
