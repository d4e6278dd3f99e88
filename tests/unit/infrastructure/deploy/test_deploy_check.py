"""`bidding deploy-check` as far as this machine goes: variables, files, tools, plans, and the command itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from infrastructure.deploy_check import hcl
from infrastructure.deploy_check import local as deploy
from infrastructure.deploy_check.local import TERRAFORM_DIR
from infrastructure.local.cli import main
from infrastructure.local.doctor import Finding

GOOD = """
domain_name       = "auction.acme.test"
hosted_zone_id    = "ZACME"
alb_ingress_cidrs = ["198.51.100.0/24"]
operator_cidrs    = ["198.51.100.7/32"]
image_tag         = "3f2a1bc"
alarm_emails      = ["ops@acme.test"]
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the Terraform folder, for files of one deployment."""
    copy = tmp_path / "terraform"
    shutil.copytree(
        TERRAFORM_DIR, copy, ignore=shutil.ignore_patterns(".terraform", "*.tfvars", "backend.hcl", "*.tfstate")
    )
    return copy


def fill_in(checkout: Path, environment: str = "dev", values: str = GOOD) -> None:
    folder = checkout / "envs" / environment
    (folder / "terraform.tfvars").write_text(values)
    (folder / "backend.hcl").write_text('bucket = "acme-terraform"\nregion = "us-east-1"\n')


def deploy_check(checkout: Path, *arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, ["deploy-check", "--terraform-dir", str(checkout), *arguments], env=env)


def graded(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.grade for finding in findings}


def values_of(**changes: Any) -> dict[str, Any]:
    values, _ = deploy.load_values(TERRAFORM_DIR / "envs" / "prod", [], {})
    return values | hcl.parse(GOOD).attributes | changes


def test_a_checkout_as_it_is_lacks_values_and_state(checkout: Path) -> None:
    result = deploy_check(checkout, "--offline")
    assert result.exit_code == 1
    assert "not set: alarm_emails, alb_ingress_cidrs, domain_name, image_tag" in result.output
    assert "backend.hcl does not exist" in result.output
    assert result.output.rstrip().endswith("certificate, state.")


def test_what_is_filled_in_is_ready_and_says_what_it_could_not_check(checkout: Path) -> None:
    fill_in(checkout)
    result = deploy_check(checkout, "--offline", "--json")
    report = json.loads(result.output)
    grades = {finding["check"]: finding["grade"] for finding in report["findings"]}
    # Whether Terraform is installed is this machine's business.
    assert {name for name, grade in grades.items() if grade == "fail"} <= {"terraform"}
    assert grades["variables"] == "ok"
    (about_aws,) = [finding for finding in report["findings"] if finding["check"] == "AWS"]
    assert about_aws["detail"].startswith("could not check")
    assert report["creates"]["exact"] is False
    assert report["creates"]["types"]["aws_lb"] == 1
    assert report["estimate"]["usd"] == pytest.approx(
        sum(round(line["usd"], 2) for line in report["estimate"]["lines"])
    )


def test_var_files_win_over_terraform_tfvars_and_these_over_the_environment(checkout: Path) -> None:
    fill_in(checkout)
    folder = checkout / "envs" / "dev"
    more = checkout / "more.tfvars"
    more.write_text('image_tag = "from-file"\n')
    environment = {"TF_VAR_image_tag": "from-environment", "TF_VAR_zones": '["c", "d"]', "TF_VAR_log_level": "DEBUG"}
    values, _ = deploy.load_values(folder, [more], environment)
    assert (values["image_tag"], values["zones"], values["log_level"]) == ("from-file", ["c", "d"], "DEBUG")
    values, _ = deploy.load_values(folder, [], environment)
    assert values["image_tag"] == "3f2a1bc"
    (folder / "z.auto.tfvars").write_text('image_tag = "automatic"\n')
    values, _ = deploy.load_values(folder, [], environment)
    assert values["image_tag"] == "automatic"


@pytest.mark.parametrize(
    "values",
    ["services = { gateway = { cpu = 256, memory = 512 } }", 'nats_servers = "three"', "zones = null"],
    ids=["a part is missing", "a text for a number", "nothing for a list"],
)
def test_values_that_cannot_be_summed_up_are_a_finding_and_no_traceback(checkout: Path, values: str) -> None:
    fill_in(checkout, values=f"{GOOD}\n{values}\n")
    for arguments in ((), ("--json",)):
        result = deploy_check(checkout, "--offline", *arguments)
        assert isinstance(result.exception, SystemExit), result.exc_info
        assert result.exit_code == 1
        assert "the costs cannot be summed up" in result.output


def test_a_misspelt_variable_is_named(checkout: Path) -> None:
    fill_in(checkout, values=GOOD + 'imagetag = "x"\n')
    _, findings = deploy.load_values(checkout / "envs" / "dev", [], {})
    assert [finding.grade for finding in findings] == ["fail"]
    assert "imagetag" in findings[0].detail


def test_a_file_that_cannot_be_read_is_an_error_and_no_traceback(checkout: Path) -> None:
    fill_in(checkout, values="domain_name = \n")
    result = deploy_check(checkout, "--offline")
    assert result.exit_code == 1
    fill_in(checkout, values='domain_name = "\n')
    result = deploy_check(checkout, "--offline")
    assert (result.exit_code, "terraform.tfvars: line 1" in result.output) == (1, True)


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_the_example_is_complete_and_is_not_to_be_applied(environment: str) -> None:
    folder = TERRAFORM_DIR / "envs" / environment
    values, findings = deploy.load_values(folder, [folder / "terraform.tfvars.example"], {})
    assert graded(findings) == {"variables": "ok"}
    assert graded(deploy.check_values(environment, values))["examples"] == "fail"


@pytest.mark.parametrize(
    ("changes", "prod", "dev"),
    [
        ({"bid_ack": "redis"}, "fail", "warn"),
        ({"bid_ack": "redis", "redis_engine": "memorydb"}, "ok", "ok"),
        ({"bid_ack": "log"}, "ok", "ok"),
        ({"bid_ack": "replica", "redis_replicas": 1}, "ok", "ok"),
        ({"bid_ack": "replica", "redis_replicas": 0}, "fail", "fail"),
        ({"bid_ack": "replica", "redis_engine": "memorydb"}, "fail", "fail"),
    ],
)
def test_what_an_acknowledgement_needs(changes: dict[str, Any], prod: str, dev: str) -> None:
    values = values_of(**changes)
    assert graded(deploy.check_values("prod", values))["acknowledgement"] == prod
    assert graded(deploy.check_values("dev", values))["acknowledgement"] == dev


def test_other_mistakes() -> None:
    findings = graded(
        deploy.check_values(
            "prod",
            values_of(hosted_zone_id=None, alb_ingress_cidrs=["0.0.0.0/0"], operator_cidrs=[], image_tag="latest"),
        )
    )
    assert findings == {
        "acknowledgement": "ok",
        "certificate": "fail",
        "ingress": "warn",
        "operators": "warn",
        "image tag": "fail",
    }
    assert graded(deploy.check_values("prod", values_of())) == {"acknowledgement": "ok"}


def test_a_budget_below_the_estimate_is_pointed_out() -> None:
    assert deploy.check_budget({"budget_usd": 100}, 99.99).grade == "ok"
    assert deploy.check_budget({"budget_usd": 100}, 100.01).grade == "warn"


def test_tools_that_are_missing() -> None:
    assert graded(deploy.check_tools(lambda _: None)) == {"terraform": "fail", "docker": "warn", "aws": "warn"}


@pytest.mark.parametrize(("version", "grade"), [("1.10.9", "fail"), ("1.11.0", "ok"), ("2.0.0", "ok")])
def test_an_old_terraform_is_refused(tmp_path: Path, version: str, grade: str) -> None:
    program = tmp_path / "terraform"
    program.write_text(f'#!/bin/sh\necho \'{{"terraform_version": "{version}"}}\'\n')
    program.chmod(0o755)
    finding = deploy.check_tools({"terraform": str(program)}.get)[0]
    assert (finding.grade, version in finding.detail) == (grade, True)


def test_a_terraform_that_does_not_run(tmp_path: Path) -> None:
    program = tmp_path / "terraform"
    program.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    program.chmod(0o755)
    finding = deploy.check_tools({"terraform": str(program)}.get)[0]
    assert finding.grade == "fail"
    assert "broken" in finding.detail


def test_a_plan_tells_what_is_created(checkout: Path, tmp_path: Path) -> None:
    fill_in(checkout)
    changes = [
        ("aws_vpc", ["create"]),
        ("aws_subnet", ["create"]),
        ("aws_subnet", ["delete", "create"]),
        ("aws_lb", ["no-op"]),
    ]
    plan = tmp_path / "plan.json"
    plan.write_text(
        json.dumps({"resource_changes": [{"type": kind, "change": {"actions": actions}} for kind, actions in changes]})
    )
    result = deploy_check(checkout, "--offline", "--json", "--plan", str(plan))
    assert json.loads(result.output)["creates"] == {"exact": True, "types": {"aws_subnet": 2, "aws_vpc": 1}}
    plan.write_text("{}")
    result = deploy_check(checkout, "--offline", "--plan", str(plan))
    assert result.exit_code == 1
    assert "is no plan" in result.output


def test_the_configuration_is_counted_through_its_modules() -> None:
    counts = deploy.configured(TERRAFORM_DIR / "envs" / "prod")
    # Gateway, broadcaster, archiver, one-shot, operator, three NATS servers, and the read cache: nodes and front ends
    # are one.
    assert counts["aws_ecs_task_definition"] == 9
    assert counts["aws_db_instance"] == 1


def test_a_state_that_is_still_the_examples(checkout: Path) -> None:
    folder = checkout / "envs" / "dev"
    (folder / "backend.hcl").write_text((folder / "backend.hcl.example").read_text())
    backend, finding = deploy.read_backend(folder)
    assert (backend, finding.grade) == ({}, "fail")
