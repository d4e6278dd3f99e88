"""The reader of Terraform's plain values: what it reads, and what it leaves to Terraform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infrastructure.deploy_check import hcl
from infrastructure.deploy_check.local import TERRAFORM_DIR

VALUES = """
# a comment
name   = "auction" // another
count  = 3
share  = 0.25
below  = -2
on     = true
none   = null
zones  = ["a", "b",
  "c", # the last
]
sizes = {
  small = { cpu = 256, "memory" : 512 }
  large = { cpu = 1024, memory = 2048, }
}
quoted = "say \\"hi\\"\\n$${kept} %%{kept}"
text   = <<END
two
lines
END
/* over
   lines */
last = []
"""


def test_plain_values() -> None:
    assert hcl.parse(VALUES).attributes == {
        "name": "auction",
        "count": 3,
        "share": 0.25,
        "below": -2,
        "on": True,
        "none": None,
        "zones": ["a", "b", "c"],
        "sizes": {"small": {"cpu": 256, "memory": 512}, "large": {"cpu": 1024, "memory": 2048}},
        "quoted": 'say "hi"\n${kept} %{kept}',
        "text": "two\nlines\n",
        "last": [],
    }


@pytest.mark.parametrize(
    "expression",
    [
        "var.region",
        '"${var.project}-dev"',
        '"a ${join(",", [for each in ["}"] : "{${each}"])} b"',
        "1 + 2",
        'can(regex("^[a-z]$", var.x)) && length([1]) > 0',
        "[for each in var.zones : upper(each)]",
        "{ for name, each in var.sizes : name => each.cpu }",
        "var.on ? 1 : 2",
        "(\n  1\n)",
        "[var.a, 1]",
        "!var.on",
        '"%${var.share}"',
        '"%{ if var.on }on%{ endif }"',
    ],
)
def test_what_only_terraform_works_out_is_passed_over(expression: str) -> None:
    body = hcl.parse(f"x = {expression}\ny = 1\n")
    assert body.attributes == {"x": hcl.EXPRESSION, "y": 1}


def test_blocks_with_labels() -> None:
    body = hcl.parse('variable "size" {\n  type = object({ a = string })\n  default = 2\n  validation {\n  }\n}\n')
    size = body.labelled("variable")["size"]
    assert size.attributes == {"type": hcl.EXPRESSION, "default": 2}
    assert [kind for kind, _, _ in size.blocks] == ["validation"]


@pytest.mark.parametrize(
    "text",
    [
        'x = "no end',
        "x = [1",
        "x = {a = 1",
        'x = "\\q"',
        "block 1.5 = {",
        "}",
        'x = "${y"',
        "x =",
        "x = [}]",
        "x = [1,,2]",
        "x = {a = }",
        "x = -",
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(hcl.HclInvalid):
        hcl.parse(text)


def test_the_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.tfvars"
    path.write_text('a = 1\nb = "\n')
    with pytest.raises(hcl.HclInvalid, match=r"bad\.tfvars: line 2"):
        hcl.read_values(path)


def test_values_as_json(tmp_path: Path) -> None:
    path = tmp_path / "a.tfvars.json"
    path.write_text('{"zones": ["a"]}')
    assert hcl.read_values(path) == {"zones": ["a"]}
    path.write_text("[]")
    with pytest.raises(hcl.HclInvalid):
        hcl.read_values(path)


@pytest.mark.parametrize(
    "path", sorted(TERRAFORM_DIR.rglob("*.tf")), ids=lambda path: str(path.relative_to(TERRAFORM_DIR))
)
def test_it_reads_every_file_of_ours(path: Path) -> None:
    text = path.read_text()
    body = hcl.parse(text)
    written = sum(
        line.startswith(("resource ", "variable ", "module ", "output ", "data ")) for line in text.splitlines()
    )
    kinds: list[Any] = [
        kind for kind, _, _ in body.blocks if kind in ("resource", "variable", "module", "output", "data")
    ]
    assert len(kinds) == written


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_every_default_is_a_plain_value(environment: str) -> None:
    variables = hcl.read_variables(TERRAFORM_DIR / "envs" / environment)
    assert len(variables) > 30
    assert [name for name, body in variables.items() if body.attributes.get("default") is hcl.EXPRESSION] == []
