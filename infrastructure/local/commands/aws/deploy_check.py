"""`bidding deploy-check`: before an apply, what is missing, what will be created, and what it costs."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click

from infrastructure.deploy_check import aws as deploy_aws
from infrastructure.deploy_check import costs as aws_costs
from infrastructure.deploy_check import hcl
from infrastructure.deploy_check import local as deploy
from infrastructure.local.commands.failing import Failure
from infrastructure.local.commands.helping import examples
from infrastructure.local.doctor import Finding
from infrastructure.local.terminal import graded, show, table


@click.command("deploy-check", epilog=examples("bidding deploy-check --env prod --offline"))
@click.option("--env", "environment", type=click.Choice(["dev", "prod"]), default="dev", show_default=True)
@click.option(
    "--var-file",
    "var_files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="As for terraform; the command always reads terraform.tfvars.",
)
@click.option(
    "--plan",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of `terraform plan -out=…`, or its JSON, to count exactly what Terraform will create.",
)
@click.option("--offline", is_flag=True, help="Do not ask AWS.")
@click.option(
    "--terraform-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=deploy.TERRAFORM_DIR,
    help="The folder with envs/; by default that of this checkout.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def deploy_check(
    environment: str, var_files: tuple[Path, ...], plan: Path | None, offline: bool, terraform_dir: Path, as_json: bool
) -> None:
    """Look before `terraform apply`. Changes nothing. Exit code 1 when something is missing."""
    folder = terraform_dir / "envs" / environment
    try:
        values, findings = deploy.load_values(folder, var_files, os.environ)
        backend, about_state = deploy.read_backend(folder)
        counts = deploy.planned(plan, folder) if plan else deploy.configured(folder)
    except (hcl.HclInvalid, ValueError, OSError, subprocess.SubprocessError) as error:
        raise Failure(str(error)) from error
    prices = aws_costs.load_prices(terraform_dir / "prices.json")
    findings += deploy.check_values(environment, values)
    lines: list[aws_costs.Line] = []
    try:
        lines = aws_costs.estimate(environment, values, prices)
        findings.append(deploy.check_budget(values, aws_costs.total(lines)))
    except (KeyError, TypeError, ValueError) as error:
        # A value does not have its variable's type. Terraform says which one, but only once it is initialised.
        text = f"the costs cannot be summed up: {type(error).__name__}: {error}"
        advice = (
            f"Compare your values with the types in {folder / 'variables.tf'}; `terraform plan` names the variable."
        )
        findings.append(Finding("estimate", "fail", text, advice))
    findings += [*deploy.check_tools(), about_state]
    findings += ask_aws(values, backend, offline=offline)
    if as_json:
        click.echo(json.dumps(_report(findings, counts, lines, exact=plan is not None), indent=2))
    else:
        _show(environment, findings, counts, lines, prices, exact=plan is not None)
    sys.exit(1 if any(finding.grade == "fail" for finding in findings) else 0)


def ask_aws(values: dict[str, Any], backend: dict[str, Any], *, offline: bool) -> list[Finding]:
    """The findings on AWS, or one line that says why there are none."""
    if offline:
        return [
            Finding("AWS", "warn", "could not check credentials, images, certificate, bucket, zones, quota: --offline")
        ]
    try:
        client = deploy_aws.open_clients(str(values.get("region")))
    except deploy_aws.Unanswered as error:
        return [Finding("AWS", "warn", f"could not check: {error}")]
    return list(deploy_aws.examine(client, values, backend))


def _report(
    findings: list[Finding], counts: Counter[str], lines: list[aws_costs.Line], *, exact: bool
) -> dict[str, Any]:
    return {
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "creates": {"exact": exact, "types": dict(sorted(counts.items()))},
        "estimate": {"usd": aws_costs.total(lines), "lines": [dataclasses.asdict(line) for line in lines]},
    }


def _show(
    environment: str,
    findings: list[Finding],
    counts: Counter[str],
    lines: list[aws_costs.Line],
    prices: aws_costs.Prices,
    *,
    exact: bool,
) -> None:
    show(graded(dataclasses.astuple(finding) for finding in findings))
    how = "to be created, says the plan" if exact else "in the configuration; those with count or for_each count once"
    click.echo(f"\n{counts.total()} resources of {len(counts)} types, {how}:")
    show(table(((f"{count}", kind) for kind, count in sorted(counts.items())), right=(0,), indent=2))
    if lines:
        _show_costs(environment, lines, prices)
    failures = [finding for finding in findings if finding.grade == "fail"]
    if failures:
        click.echo(f"\nMissing: {', '.join(finding.check for finding in failures)}.")
    else:
        click.echo(f"\nReady: terraform -chdir=infrastructure/terraform/envs/{environment} plan")


def _show_costs(environment: str, lines: list[aws_costs.Line], prices: aws_costs.Prices) -> None:
    click.echo(f"\nA month of {environment}, in USD at the list prices of us-east-1 ({prices['as_of']}), without bids:")
    rows = [(f"{line.usd:,.2f}", line.what, line.sum) for line in lines]
    show(table([*rows, (f"{aws_costs.total(lines):,.2f}", "total", "")], right=(0,), indent=2))
    added = aws_costs.total(aws_costs.per_million_bids(environment, prices, viewers=0))
    watched = aws_costs.total(aws_costs.per_million_bids(environment, prices, viewers=100))
    click.echo(f"  and {added:,.2f} for a million bids, {watched:,.2f} where 100 viewers see each of them")
