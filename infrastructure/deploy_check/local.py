"""What `bidding deploy-check` checks on this machine: variables, files, tools, and what would be created."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from infrastructure.deploy_check import hcl
from infrastructure.local.doctor import Finding

TERRAFORM_DIR: Final = Path(__file__).parents[1] / "terraform"
TERRAFORM_MIN: Final = (1, 11)
_COMMAND_TIMEOUT_S: Final = 60

# Values of the example files that nobody should apply.
_EXAMPLES: Final = ("example.com", "example.org", "Z0123456789ABC", "123456789012", "203.0.113.")


def load_values(
    folder: Path, var_files: Sequence[Path], environment: Mapping[str, str]
) -> tuple[dict[str, Any], list[Finding]]:
    """The variables of a root module as Terraform reads them: defaults, TF_VAR_…, terraform.tfvars, *.auto.tfvars,
    ``var_files``. Later ones win.

    Raises:
        HclInvalid: a file is not in Terraform's language.
        OSError: a file cannot be read.
    """
    declared = hcl.read_variables(folder)
    values = {name: body.attributes["default"] for name, body in declared.items() if "default" in body.attributes}
    for name in declared:
        if (text := environment.get(f"TF_VAR_{name}")) is not None:
            values[name] = _of_environment(text)
    findings: list[Finding] = []
    for path in [*_found_values(folder), *var_files]:
        given = hcl.read_values(path)
        unknown = sorted(set(given) - set(declared))
        if unknown:
            text = f"{path.name} sets {', '.join(unknown)}, which do not exist"
            findings.append(Finding("variables", "fail", text, f"{folder}/variables*.tf have those that do."))
        values |= {name: value for name, value in given.items() if name in declared}
    missing = sorted(set(declared) - set(values))
    if missing:
        advice = f"Copy {folder / 'terraform.tfvars.example'} to terraform.tfvars and fill it in."
        findings.append(Finding("variables", "fail", f"not set: {', '.join(missing)}", advice))
    elif not findings:
        findings.append(Finding("variables", "ok", f"{len(values)} are set or have a default"))
    return values, findings


def _found_values(folder: Path) -> list[Path]:
    plain = [folder / "terraform.tfvars", folder / "terraform.tfvars.json"]
    return [path for path in plain if path.exists()] + sorted(
        [*folder.glob("*.auto.tfvars"), *folder.glob("*.auto.tfvars.json")]
    )


def _of_environment(text: str) -> Any:
    """The value of a TF_VAR_…: in Terraform's language, or plain text."""
    try:
        value = hcl.parse(f"value = {text}\n").attributes["value"]
    except (hcl.HclInvalid, KeyError):
        return text
    return text if value is hcl.EXPRESSION else value


def check_values(environment: str, values: Mapping[str, Any]) -> list[Finding]:
    """Usual mistakes of a first deployment. Terraform checks every variable again."""
    findings = [_examples_left(values), _certificate(values), _acknowledgement(environment, values)]
    if "0.0.0.0/0" in (values.get("alb_ingress_cidrs") or []) and values.get("auth_mode") != "jwt":
        advice = "The API does not ask who is calling: read docs/deploy-aws.md, “Who may reach it”."
        findings.append(Finding("ingress", "warn", "everybody may reach the platform", advice))
    if not values.get("operator_cidrs"):
        advice = "Set operator_cidrs to your own network, or open_catalogue in dev."
        findings.append(Finding("operators", "warn", "nobody may create items from outside", advice))
    if values.get("image_tag") == "latest":
        findings.append(Finding("image tag", "fail", "latest is no tag to roll back to", "Use the commit."))
    return [finding for finding in findings if finding is not None]


def _examples_left(values: Mapping[str, Any]) -> Finding | None:
    left = [name for name, value in values.items() if any(mark in json.dumps(value, default=str) for mark in _EXAMPLES)]
    if not left:
        return None
    return Finding(
        "examples", "fail", f"still as in the example: {', '.join(sorted(left))}", "Put your own values there."
    )


def _certificate(values: Mapping[str, Any]) -> Finding | None:
    if values.get("certificate_arn") or values.get("hosted_zone_id"):
        return None
    return Finding("certificate", "fail", "neither certificate_arn nor hosted_zone_id is set", "Set one of them.")


def _acknowledgement(environment: str, values: Mapping[str, Any]) -> Finding | None:
    engine, ack = values.get("redis_engine"), values.get("bid_ack")
    if engine == "elasticache" and ack == "redis":
        text = "BID_ACK=redis on ElastiCache, which keeps bids in memory only"
        advice = "Set bid_ack to log or replica, or redis_engine to memorydb."
        return Finding("acknowledgement", "fail" if environment == "prod" else "warn", text, advice)
    if ack == "replica" and (engine == "memorydb" or not values.get("redis_replicas")):
        text = "BID_ACK=replica, but there is no replica that could confirm"
        return Finding("acknowledgement", "fail", text, "Set redis_replicas to 1 or more, or bid_ack to log.")
    return Finding("acknowledgement", "ok", f"BID_ACK={ack} on {engine}")


def check_budget(values: Mapping[str, Any], estimated_usd: float) -> Finding:
    """Whether the budget would send its alarm in the first month already."""
    budget = values.get("budget_usd")
    detail = f"{estimated_usd:,.2f} USD a month estimated, {budget} budgeted"
    if isinstance(budget, int | float) and budget < estimated_usd:
        return Finding("budget", "warn", detail, "Raise budget_usd, or the mail comes every month.")
    return Finding("budget", "ok", detail)


def check_tools(which: Callable[[str], str | None] = shutil.which) -> list[Finding]:
    """The programs that docs/deploy-aws.md uses."""
    findings = [_check_terraform(which("terraform"))]
    needs = {
        "docker": "It builds the images; `docker buildx` for another architecture.",
        "aws": "It logs in to ECR and runs tasks.",
    }
    for program, purpose in needs.items():
        path = which(program)
        findings.append(Finding(program, "ok", path) if path else Finding(program, "warn", "not found", purpose))
    return findings


def _check_terraform(path: str | None) -> Finding:
    advice = f"Install Terraform {'.'.join(map(str, TERRAFORM_MIN))} or newer: docs/deploy-aws.md, step 1."
    if path is None:
        return Finding("terraform", "fail", "not found", advice)
    try:
        text = _output([path, "version", "-json"])
        version = str(json.loads(text[text.index("{") :])["terraform_version"])
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        return Finding("terraform", "fail", f"{path} does not tell its version: {error}", advice)
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    return Finding(
        "terraform",
        "ok" if numbers >= TERRAFORM_MIN else "fail",
        f"{version} at {path}",
        "" if numbers >= TERRAFORM_MIN else advice,
    )


def read_backend(folder: Path) -> tuple[dict[str, Any], Finding]:
    """The contents of backend.hcl, and whether it names a bucket for the state."""
    path = folder / "backend.hcl"
    advice = f"Copy {path}.example to {path.name} and put bootstrap's bucket there."
    if not path.exists():
        return {}, Finding("state", "fail", f"{path} does not exist", advice)
    backend = hcl.read_values(path)
    bucket = backend.get("bucket")
    if not isinstance(bucket, str) or any(mark in bucket for mark in _EXAMPLES):
        return {}, Finding("state", "fail", f"{path} names no bucket of yours", advice)
    return backend, Finding("state", "ok", f"kept in the bucket {bucket}")


def planned(plan: Path, folder: Path) -> Counter[str]:
    """How many resources of each type a plan creates. `terraform plan -out` or `terraform show -json` wrote ``plan``.

    Raises:
        ValueError: it is no plan.
        OSError, subprocess.SubprocessError: Terraform cannot be asked.
    """
    if plan.suffix == ".json":
        text = plan.read_text()
    else:
        text = _output(
            [shutil.which("terraform") or "terraform", f"-chdir={folder}", "show", "-json", str(plan.absolute())]
        )
    try:
        changes = json.loads(text[text.index("{") :])["resource_changes"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{plan} is no plan of Terraform") from error
    return Counter(change["type"] for change in changes if "create" in change["change"]["actions"])


def configured(folder: Path) -> Counter[str]:
    """How many resources of each type the configuration names. One with count or for_each counts once.

    Raises:
        HclInvalid: a file is not in this language.
        OSError: a file cannot be read.
    """
    counts: Counter[str] = Counter()
    for path in sorted(folder.glob("*.tf")):
        for kind, labels, body in hcl.parse(path.read_text()).blocks:
            if kind == "resource":
                counts[labels[0]] += 1
            elif kind == "module":
                counts += configured((folder / str(body.attributes["source"])).resolve())
    return counts


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise OSError(reason[0] if reason else f"exit code {done.returncode}")
    return done.stdout
