"""Makes the bucket for the exports in an emulator of AWS. Safe to run again.

In an AWS account Terraform does this.
"""

from __future__ import annotations

import os
import sys

import click

from shared.aws.clients import AwsError, ensure_bucket, open_s3


def main() -> None:
    """Make the bucket ``EXPORT_S3_BUCKET`` at ``AWS_ENDPOINT_URL``. Refuses if that is unset: never at AWS itself."""
    bucket, endpoint_url = os.environ.get("EXPORT_S3_BUCKET", ""), os.environ.get("AWS_ENDPOINT_URL", "")
    if not bucket or not endpoint_url:
        click.echo("EXPORT_S3_BUCKET and AWS_ENDPOINT_URL must be set: this is for emulators alone", err=True)
        sys.exit(78)
    try:
        made = ensure_bucket(open_s3(endpoint_url=endpoint_url), bucket)
    except AwsError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    click.echo(f"bucket {bucket} {'made' if made else 'is there'}")


if __name__ == "__main__":
    main()
