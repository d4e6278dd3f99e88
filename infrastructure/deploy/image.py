"""The platform's image: whether the registry has it, and how it gets there."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from infrastructure.deploy.ecs import Client
from infrastructure.deploy.errors import DeployError
from shared.aws.clients import AwsError, translated

ROOT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = "infrastructure/docker/Dockerfile"
PLATFORMS: Final = {"ARM64": "linux/arm64", "X86_64": "linux/amd64"}

_BUILD_S: Final = 3_600.0
_COMMAND_S: Final = 60.0


_MANIFESTS: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_IS_THERE: Final = ("ImageAlreadyExistsException", "ImageTagAlreadyExistsException")


def is_pushed(client: Client, image: str) -> bool:
    """Whether the registry has this image, by its tag.

    Raises:
        DeployError: there is no such repository.
        AwsError: the registry cannot be asked.
    """
    repository, tag = _parts(image)
    try:
        with translated(f"ECR, {repository}:{tag}"):
            client("ecr").describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])
    except AwsError as error:
        code = _code(error)
        if code == "ImageNotFoundException":
            return False
        if code == "RepositoryNotFoundException":
            raise DeployError(
                f"there is no repository {repository}: apply infrastructure/terraform/bootstrap, "
                "docs/deploy-aws.md, step 3"
            ) from error
        raise
    return True


def keep(client: Client, environment: str, image: str) -> None:
    """Give the image a second tag, ``dev-…`` or ``prod-…``. The registry counts images with such tags by environment,
    apart from all others, so that pushes for one environment never push out what another one runs.

    Raises:
        AwsError: the registry cannot be asked, or does not let us.
    """
    repository, tag = _parts(image)
    with translated(f"ECR, {repository}:{tag}"):
        answer = client("ecr").batch_get_image(
            repositoryName=repository, imageIds=[{"imageTag": tag}], acceptedMediaTypes=list(_MANIFESTS)
        )
    if not answer["images"]:
        raise DeployError(f"{image} has gone from the registry: push it again under another tag")
    found = answer["images"][0]
    media = {"imageManifestMediaType": found["imageManifestMediaType"]} if found.get("imageManifestMediaType") else {}
    try:
        with translated(f"ECR, {repository}:{environment}-{tag}"):
            client("ecr").put_image(
                repositoryName=repository,
                imageManifest=found["imageManifest"],
                imageTag=f"{environment}-{tag}",
                **media,
            )
    except AwsError as error:
        if _code(error) not in _IS_THERE:
            raise


def _parts(image: str) -> tuple[str, str]:
    """Repository and tag, of a registry's name, a repository and a tag."""
    name, _, tag = image.rpartition(":")
    return name.partition("/")[2], tag


def _code(error: AwsError) -> str:
    return str(getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", ""))


def head(root: Path | None = None) -> str:
    """The commit that is checked out, shortened, by which its image is called.

    Raises:
        DeployError: this is no checkout, or it has changes that no commit has: an image of that name would not be what
            the name says.
    """
    root = root or ROOT
    changed = _output(["git", "status", "--porcelain", "--untracked-files=no"], root)
    new = _output(["git", "ls-files", "--others", "--exclude-standard", "--", *_in_the_image(root)], root)
    if changed.strip() or new.strip():
        named = ", ".join(line[3:] for line in changed.splitlines()) or ", ".join(new.split()[:5])
        raise DeployError(
            f"there are changes that are not committed ({named}): commit them, or name a pushed image with --tag"
        )
    return _output(["git", "rev-parse", "--short", "HEAD"], root).strip()


def _in_the_image(root: Path) -> list[str]:
    """The parts of the checkout that its .dockerignore lets into the image; everything if there is no such file."""
    try:
        lines = (root / ".dockerignore").read_text().split()
    except OSError:
        return ["."]
    return [
        *(line[1:] for line in lines if line.startswith("!") and "*" not in line),
        *(f":(exclude){line}" for line in lines if line.startswith("infrastructure/") and "*" not in line),
    ]


def build_and_push(client: Client, image: str, *, architecture: str, root: Path | None = None) -> None:
    """Build the image of this checkout for Fargate, and push it.

    Raises:
        DeployError: Docker is missing or fails; the text has the end of what it said.
        AwsError: the registry gives no token.
    """
    root = root or ROOT
    if not shutil.which("docker"):
        raise DeployError("docker is not installed, and the image is not pushed yet: docs/deploy-aws.md, step 4")
    with translated("ECR, token"):
        token = client("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"]
    user, _, password = base64.b64decode(token).decode().partition(":")
    registry = image.partition("/")[0]
    # Over stdin: everybody on this machine can see a command line.
    _run(["docker", "login", "--username", user, "--password-stdin", registry], root, given=password)
    build = ["docker", "buildx", "build", "--platform", PLATFORMS[architecture], "--target", "runtime"]
    _run([*build, "--file", DOCKERFILE, "--tag", image, "--push", "."], root, within_s=_BUILD_S)


def _run(command: Sequence[str], root: Path, *, given: str | None = None, within_s: float = _COMMAND_S) -> None:
    try:
        done = subprocess.run(
            command, cwd=root, input=given, capture_output=True, text=True, timeout=within_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DeployError(f"`{' '.join(command[:3])}` was not done within {within_s:.0f} s") from error
    if done.returncode:
        said = "\n".join(f"    {line}" for line in (done.stderr or done.stdout).strip().splitlines()[-5:])
        raise DeployError(f"`{' '.join(command[:3])}` failed with exit code {done.returncode}:\n{said}")


def _output(command: Sequence[str], root: Path) -> str:
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    except OSError as error:
        raise DeployError(f"{command[0]} cannot be run: {error}; name the image with --tag") from error
    if done.returncode:
        raise DeployError(f"this is no checkout that git knows: {done.stderr.strip()}; name the image with --tag")
    return done.stdout
