"""What `bidding deploy-check` asks AWS: who we are, and whether everything exists that an apply takes for granted.

It changes nothing. A check that cannot be made is reported as such and is no failure: the machine may be offline, or
the credentials may lack the permission.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from infrastructure.local.doctor import Finding

_CONNECT_TIMEOUT_S: Final = 5
_READ_TIMEOUT_S: Final = 20
_QUOTA_OF_VCPUS: Final = ("fargate", "L-3032A538")

Client = Callable[[str], Any]


class Unanswered(Exception):
    """AWS could not be asked; the text says why."""


def open_clients(region: str | None) -> Client:
    """Opens boto3's clients by the name of their service. boto3 finds AWS_ENDPOINT_URL and credentials as usual, and
    the region too where none is given.

    Raises:
        Unanswered: boto3 is not installed, or the region or a profile is invalid.
    """
    try:
        boto3 = importlib.import_module("boto3")
        config = importlib.import_module("botocore.config").Config(
            connect_timeout=_CONNECT_TIMEOUT_S, read_timeout=_READ_TIMEOUT_S, retries={"total_max_attempts": 2}
        )
        session = boto3.session.Session(region_name=region)
    except ImportError as error:
        raise Unanswered("boto3 is not installed: pip install 'bidding-platform[aws]'") from error
    except Exception as error:  # such as a missing profile; botocore's errors cannot be imported without botocore
        raise Unanswered(str(error)) from error
    # One for each service that is asked, and these are few: to make one takes longer than an answer.
    return functools.cache(lambda service: session.client(service, config=config))


def examine(client: Client, values: Mapping[str, Any], backend: Mapping[str, Any]) -> Iterator[Finding]:
    """All checks. The first one shows whether the others make sense."""
    identity = check_identity(client)
    yield identity
    if identity.grade != "ok":
        for check in (
            "image",
            "NATS image",
            "collector image",
            "certificate",
            "state bucket",
            "zones",
            "Fargate quota",
        ):
            yield _unasked(check, "without credentials there is nobody to ask")
        return
    project = str(values.get("project"))
    yield _guarded("image", lambda: check_image(client, "image", project, values.get("image_tag")))
    yield _guarded(
        "NATS image", lambda: check_image(client, "NATS image", f"{project}-nats", values.get("nats_image_tag"))
    )
    if tag := values.get("collector_image_tag"):
        yield _guarded("collector image", lambda: check_image(client, "collector image", f"{project}-collector", tag))
    yield _guarded("certificate", lambda: check_certificate(client, values))
    yield _guarded("state bucket", lambda: check_state_bucket(client, backend))
    yield _guarded("zones", lambda: check_zones(client, values))
    yield _guarded("Fargate quota", lambda: check_vcpus(client, values))


def check_identity(client: Client) -> Finding:
    """Whether there are credentials that AWS accepts."""
    advice = "aws configure, or aws sso login; AWS_PROFILE chooses among several."
    try:
        answer = client("sts").get_caller_identity()
    except Exception as error:
        if _is_offline(error):
            return _unasked("credentials", str(error))
        return Finding("credentials", "fail", str(error), advice)
    return Finding("credentials", "ok", f"account {answer['Account']}, {answer['Arn']}")


def check_image(client: Client, check: str, repository: str, tag: Any) -> Finding:
    """Whether the tag was pushed."""
    name = f"{repository}:{tag}"
    try:
        client("ecr").describe_images(repositoryName=repository, imageIds=[{"imageTag": str(tag)}])
    except Exception as error:
        code = _code(error)
        if code == "RepositoryNotFoundException":
            return Finding(
                check, "fail", f"there is no repository {repository}", "Apply infrastructure/terraform/bootstrap."
            )
        if code == "ImageNotFoundException":
            return Finding(check, "fail", f"{name} was not pushed", "docs/deploy-aws.md, step 4.")
        raise
    return Finding(check, "ok", f"{name} is there")


def check_certificate(client: Client, values: Mapping[str, Any]) -> Finding:
    """Whether the named certificate was issued for the domain, or the zone for a new one exists."""
    domain, arn = str(values.get("domain_name")), values.get("certificate_arn")
    if not arn:
        zone = values.get("hosted_zone_id")
        if not zone:
            return Finding(
                "certificate", "fail", "neither certificate_arn nor hosted_zone_id is set", "Set one of them."
            )
        name = str(client("route53").get_hosted_zone(Id=zone)["HostedZone"]["Name"]).rstrip(".")
        if domain == name or domain.endswith(f".{name}"):
            return Finding("certificate", "ok", f"will be ordered for {domain} in the zone {name}")
        return Finding(
            "certificate", "fail", f"{domain} is not in the zone {name}", "Correct domain_name or hosted_zone_id."
        )
    certificate = client("acm").describe_certificate(CertificateArn=arn)["Certificate"]
    if certificate["Status"] != "ISSUED":
        return Finding(
            "certificate",
            "fail",
            f"{certificate['Status']}, not ISSUED",
            "Prove the domain first: docs/deploy-aws.md, step 5.",
        )
    names = {certificate["DomainName"], *certificate.get("SubjectAlternativeNames", [])}
    if domain in names or f"*.{domain.partition('.')[2]}" in names:
        return Finding("certificate", "ok", f"issued for {domain}")
    return Finding(
        "certificate", "fail", f"issued for {', '.join(sorted(names))}, not for {domain}", "Order one for domain_name."
    )


def check_state_bucket(client: Client, backend: Mapping[str, Any]) -> Finding:
    """Whether the bucket for the state exists, is ours, and keeps old versions."""
    bucket = backend.get("bucket")
    if not bucket:
        return _unasked("state bucket", "backend.hcl names none")
    s3 = client("s3")
    try:
        s3.head_bucket(Bucket=bucket)
    except Exception as error:
        if _code(error) in ("404", "NoSuchBucket"):
            return Finding(
                "state bucket", "fail", f"{bucket} does not exist", "Apply infrastructure/terraform/bootstrap."
            )
        raise
    if s3.get_bucket_versioning(Bucket=bucket).get("Status") != "Enabled":
        return Finding("state bucket", "warn", f"{bucket} keeps no old versions", "bootstrap switches them on.")
    return Finding("state bucket", "ok", f"{bucket} is there and keeps old versions")


def check_zones(client: Client, values: Mapping[str, Any]) -> Finding:
    """Whether the named zones exist in this account."""
    wanted = {f"{values.get('region')}{letter}" for letter in values.get("zones", [])}
    answer = client("ec2").describe_availability_zones(
        Filters=[{"Name": "opt-in-status", "Values": ["opt-in-not-required"]}]
    )
    there = {zone["ZoneName"] for zone in answer["AvailabilityZones"]}
    if missing := sorted(wanted - there):
        return Finding(
            "zones", "fail", f"there is no {', '.join(missing)}", f"zones can be {', '.join(sorted(there))}."
        )
    return Finding("zones", "ok", ", ".join(sorted(wanted)))


def check_vcpus(client: Client, values: Mapping[str, Any]) -> Finding:
    """Whether the account may run as many vCPUs as the services may grow to. New accounts may run very few."""
    sizes = [*values["services"].values()]
    if values.get("cache_node_enabled"):
        sizes += values["cache_services"].values()
    units = sum(size["cpu"] * size["max"] for size in sizes)
    wanted = (units + values["nats_cpu"] * values["nats_servers"]) / 1024
    service, quota = _QUOTA_OF_VCPUS
    allowed = client("service-quotas").get_service_quota(ServiceCode=service, QuotaCode=quota)["Quota"]["Value"]
    detail = f"{allowed:g} vCPUs allowed, up to {wanted:g} wanted"
    if allowed < wanted:
        advice = "Ask for more under Service Quotas, Fargate On-Demand vCPU resource count; it takes a day."
        return Finding("Fargate quota", "fail", detail, advice)
    return Finding("Fargate quota", "ok", detail)


def _guarded(check: str, question: Callable[[], Finding]) -> Finding:
    try:
        return question()
    except Exception as error:
        return _unasked(check, f"{_code(error) or type(error).__name__}: {error}")


def _unasked(check: str, reason: str) -> Finding:
    return Finding(check, "warn", f"could not check: {reason}")


def _code(error: Exception) -> str:
    """The code of AWS' answer; empty if there was no answer."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _is_offline(error: Exception) -> bool:
    """Whether there was no answer at all, rather than a refusal or an empty one."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"HTTPClientError", "ConnectionError", "EndpointConnectionError"})
