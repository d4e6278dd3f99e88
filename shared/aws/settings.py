"""The AWS settings of every service, read from the environment. Where all are empty, AWS is not used."""

from __future__ import annotations

from pydantic import Field

from shared.settings import EnvironmentSettings


class AwsSettings(EnvironmentSettings):
    """Beside the settings of the services; credentials and region come from where boto3 finds them.

    Attributes:
        aws_endpoint_url: where AWS is, if not at AWS: an emulator.
        metrics_cloudwatch_namespace: report metrics under this namespace, such as ``Bidding/prod``; empty for none.
        metrics_cloudwatch_interval_s: how often. Less than 60 s costs more calls and shows no more on a dashboard.
        cloud_map_service_id: register with this service of Cloud Map, ``srv-…``, while running; empty for none.
        cloud_map_address: the address to register; empty for that of this machine's name.
    """

    aws_endpoint_url: str = ""
    metrics_cloudwatch_namespace: str = ""
    metrics_cloudwatch_interval_s: float = Field(default=60, ge=1, le=3_600)
    cloud_map_service_id: str = ""
    cloud_map_address: str = ""
