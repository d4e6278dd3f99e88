"""What is checked in of the protocol is what its definition makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[4] / "shared" / "read_cache" / "peers"


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable}
    script = FOLDER / "generate.sh"
    subprocess.run(["sh", str(script), str(tmp_path)], check=True, env=environment, timeout=120)
    made = tmp_path / "shared" / "read_cache" / "peers"
    assert {path.name for path in made.iterdir()} == {"cache_pb2.py", "cache_pb2.pyi"}
    for path in made.iterdir():
        assert path.read_text() == (FOLDER / path.name).read_text(), f"run {script.relative_to(FOLDER.parents[2])}"
