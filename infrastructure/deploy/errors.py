"""What can go wrong with a deployment."""

from __future__ import annotations


class DeployError(Exception):
    """A step could not be made; the text says which, why, and what to do."""


class ServiceFailed(DeployError):
    """A service did not come up with its new tasks, or ECS has taken its deployment back."""


class Unverified(DeployError):
    """The new version runs, and does not answer as it should, or an alarm rings."""


class Unfinished(DeployError):
    """Another deployment was begun and neither finished nor rolled back."""


class Overtaken(DeployError):
    """Another run goes on with the deployment; this one changes nothing more."""
