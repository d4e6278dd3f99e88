"""What `bidding deploy-check` asks AWS, asked of moto's server on this machine."""

from __future__ import annotations

import datetime
import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto.server import ThreadedMotoServer

from infrastructure.deploy_check import aws as deploy_aws
from infrastructure.local.cli import main
from infrastructure.local.doctor import Finding
from infrastructure.local.servers.ports import free_ports

REGION = "us-east-1"
FIRST_QUESTIONS = {
    "sts": "get_caller_identity",
    "ecr": "describe_repositories",
    "acm": "list_certificates",
    "route53": "list_hosted_zones",
    "s3": "list_buckets",
    "ec2": "describe_availability_zones",
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    threaded = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    threaded.start()
    host, port = threaded.get_host_and_port()
    address = f"http://{host}:{port}"
    # moto imports a service when it is first asked for it, which takes longer on a busy machine than an answer may.
    patient = Config(read_timeout=120, retries={"total_max_attempts": 1})
    login = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": REGION}
    for service, question in FIRST_QUESTIONS.items():
        getattr(boto3.client(service, endpoint_url=address, config=patient, **login), question)()
    yield address
    threaded.stop()


@pytest.fixture(scope="module")
def clients() -> deploy_aws.Client:
    """Each is made when a test first asks for it, with what `aws` has set in the environment."""
    return deploy_aws.open_clients(REGION)


@pytest.fixture
def aws(server: str, clients: deploy_aws.Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[deploy_aws.Client]:
    """Clients of an account with nothing in it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    yield clients
    urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset", method="POST")).close()


def values(**changes: Any) -> dict[str, Any]:
    sizes = {"gateway": {"cpu": 1024, "max": 2}}
    return {
        "project": "bidding",
        "region": REGION,
        "zones": ["a", "b"],
        "domain_name": "auction.acme.test",
        "certificate_arn": None,
        "hosted_zone_id": None,
        "image_tag": "3f2a1bc",
        "nats_image_tag": "2.11",
        "services": sizes,
        "nats_cpu": 256,
        "nats_servers": 1,
    } | changes


def answers(aws: deploy_aws.Client, backend: dict[str, Any] | None = None, **changes: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in deploy_aws.examine(aws, values(**changes), backend or {})}


def push(aws: deploy_aws.Client, repository: str, tag: str) -> None:
    aws("ecr").create_repository(repositoryName=repository)
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "layers": []}
    aws("ecr").put_image(repositoryName=repository, imageManifest=json.dumps(manifest | {"config": {}}), imageTag=tag)


def test_an_empty_account(aws: deploy_aws.Client) -> None:
    found = answers(aws, {"bucket": "acme-terraform"})
    assert found["credentials"].grade == "ok"
    assert "123456789012" in found["credentials"].detail
    assert {name for name, finding in found.items() if finding.grade == "fail"} == {
        "image",
        "NATS image",
        "certificate",
        "state bucket",
    }
    assert "bootstrap" in found["image"].advice
    assert found["zones"].grade == "ok"


def test_everything_is_there(aws: deploy_aws.Client) -> None:
    push(aws, "bidding", "3f2a1bc")
    push(aws, "bidding-nats", "2.11")
    aws("s3").create_bucket(Bucket="acme-terraform")
    aws("s3").put_bucket_versioning(Bucket="acme-terraform", VersioningConfiguration={"Status": "Enabled"})
    zone = aws("route53").create_hosted_zone(Name="acme.test", CallerReference="1")["HostedZone"]["Id"]
    found = answers(aws, {"bucket": "acme-terraform"}, hosted_zone_id=zone)
    assert {name for name, finding in found.items() if finding.grade != "ok"} <= {"Fargate quota"}


def test_a_tag_that_was_not_pushed(aws: deploy_aws.Client) -> None:
    push(aws, "bidding", "other")
    finding = answers(aws)["image"]
    assert (finding.grade, "3f2a1bc was not pushed" in finding.detail) == ("fail", True)


def test_a_bucket_that_forgets(aws: deploy_aws.Client) -> None:
    aws("s3").create_bucket(Bucket="acme-terraform")
    assert answers(aws, {"bucket": "acme-terraform"})["state bucket"].grade == "warn"


def test_a_domain_outside_of_its_zone(aws: deploy_aws.Client) -> None:
    zone = aws("route53").create_hosted_zone(Name="other.test", CallerReference="2")["HostedZone"]["Id"]
    finding = answers(aws, hosted_zone_id=zone)["certificate"]
    assert (finding.grade, "is not in the zone other.test" in finding.detail) == ("fail", True)


def test_a_certificate_that_is_not_issued_yet(aws: deploy_aws.Client) -> None:
    order = aws("acm").request_certificate(DomainName="auction.acme.test", ValidationMethod="DNS")
    finding = answers(aws, certificate_arn=order["CertificateArn"])["certificate"]
    assert (finding.grade, finding.detail) == ("fail", "PENDING_VALIDATION, not ISSUED")


def self_signed(domain: str) -> dict[str, bytes]:
    """A certificate for the domain and its key, as ACM imports them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, domain)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {"Certificate": certificate.public_bytes(encoding), "PrivateKey": private}


@pytest.mark.parametrize(
    ("issued_for", "grade"), [("auction.acme.test", "ok"), ("*.acme.test", "ok"), ("acme.test", "fail")]
)
def test_a_certificate_of_ones_own(aws: deploy_aws.Client, issued_for: str, grade: str) -> None:
    arn = aws("acm").import_certificate(**self_signed(issued_for))["CertificateArn"]
    assert answers(aws, certificate_arn=arn)["certificate"].grade == grade


def test_a_zone_that_does_not_exist(aws: deploy_aws.Client) -> None:
    finding = answers(aws, zones=["a", "z"])["zones"]
    assert (finding.grade, "us-east-1z" in finding.detail) == ("fail", True)


class Quota:
    """Stands for a client of Service Quotas, which moto does not know for Fargate."""

    def __init__(self, vcpus: float) -> None:
        self.vcpus = vcpus

    def get_service_quota(self, **_: str) -> dict[str, Any]:
        return {"Quota": {"Value": self.vcpus}}


@pytest.mark.parametrize(("allowed", "grade"), [(2.25, "ok"), (2.0, "fail")])
def test_a_new_account_may_run_too_few_tasks(allowed: float, grade: str) -> None:
    assert deploy_aws.check_vcpus(lambda _: Quota(allowed), values()).grade == grade


@pytest.mark.parametrize(("enabled", "grade"), [(False, "ok"), (True, "fail")])
def test_nodes_of_the_read_cache_need_vcpus_too(enabled: bool, grade: str) -> None:
    sizes = {"node": {"cpu": 256, "max": 12}, "front_end": {"cpu": 256, "max": 2}}
    wanted = values(cache_node_enabled=enabled, cache_services=sizes)
    assert deploy_aws.check_vcpus(lambda _: Quota(5.5), wanted).grade == grade
    assert deploy_aws.check_vcpus(lambda _: Quota(5.75), wanted).grade == "ok"


def test_no_credentials_are_a_failure_and_the_rest_could_not_be_checked(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    found = answers(deploy_aws.open_clients(REGION))
    assert found.pop("credentials").grade == "fail"
    assert {finding.detail[:15] for finding in found.values()} == {"could not check"}


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    found = answers(deploy_aws.open_clients(REGION))
    assert {finding.grade for finding in found.values()} == {"warn"}
    assert {finding.detail[:15] for finding in found.values()} == {"could not check"}


def test_a_profile_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(deploy_aws.Unanswered, match="no-such-profile"):
        deploy_aws.open_clients(REGION)


def test_the_command_asks(aws: deploy_aws.Client) -> None:
    result = CliRunner().invoke(main, ["deploy-check", "--env", "dev", "--json"])
    checks = {finding["check"]: finding["grade"] for finding in json.loads(result.output)["findings"]}
    assert (checks["credentials"], checks["image"], result.exit_code) == ("ok", "fail", 1)
