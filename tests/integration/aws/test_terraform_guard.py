"""What prod refuses: real Terraform, on the guard alone, which needs no provider and no account."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

GUARD = Path(__file__).parents[3] / "infrastructure" / "terraform" / "modules" / "guard"

pytestmark = pytest.mark.integration

ROOT_MODULE = """
variable "protect" { type = bool }
variable "redis" { type = string }

# Something with an id that changes when it is made anew, as a cluster has one.
resource "terraform_data" "redis" {
  triggers_replace = var.redis
}

module "guard" {
  source  = "./guard"
  protect = var.protect
  ids     = { Redis = terraform_data.redis.id }
}
"""


class Terraform:
    """A root module in a folder, with its state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(GUARD, folder / "guard")
        (folder / "main.tf").write_text(ROOT_MODULE)

    def __call__(self, *arguments: str, protect: str = "true", redis: str = "one") -> tuple[int, str]:
        """Exit code, and what it said on both outputs."""
        done = self._run(*arguments, protect=protect, redis=redis)
        return done.returncode, done.stdout + done.stderr

    def resources(self) -> list[str]:
        """What the state has; warnings of this machine's configuration are on the other output."""
        return self._run("state", "list").stdout.split()

    def _run(self, *arguments: str, protect: str = "true", redis: str = "one") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["terraform", *arguments],
            cwd=self.folder,
            env=os.environ
            | {"TF_VAR_protect": protect, "TF_VAR_redis": redis, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
def test_nothing_protected_is_destroyed_or_made_anew(tmp_path: Path) -> None:
    terraform = Terraform(tmp_path)
    assert terraform("init", "-no-color")[0] == 0
    apply, destroy = ("apply", "-auto-approve", "-no-color"), ("destroy", "-auto-approve", "-no-color")
    code, said = terraform(*apply)
    assert code == 0, said
    there = terraform.resources()
    code, said = terraform(*destroy)
    assert code != 0
    assert "Instance cannot be destroyed" in said
    # The whole plan is refused: nothing of it has been carried out.
    assert terraform.resources() == there
    code, said = terraform(*apply, redis="another")
    assert code != 0
    assert "Instance cannot be destroyed" in said
    # Switching `protect` off is no way past it: that takes a hand on the state.
    assert terraform(*apply, protect="false")[0] != 0
    assert terraform("state", "rm", "module.guard.terraform_data.this[0]")[0] == 0
    code, said = terraform(*apply, protect="false")
    assert code == 0, said
    assert terraform(*destroy, protect="false")[0] == 0
    assert terraform.resources() == []


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
def test_what_is_not_protected_goes(tmp_path: Path) -> None:
    terraform = Terraform(tmp_path)
    assert terraform("init", "-no-color")[0] == 0
    assert terraform("apply", "-auto-approve", "-no-color", protect="false")[0] == 0
    assert terraform("destroy", "-auto-approve", "-no-color", protect="false")[0] == 0
