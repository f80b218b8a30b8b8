"""Buckets: which server, region and credentials s3:// and gs:// mean, all from the environment.

Addresses and job files name no server and hold no secret, so the same job runs against another store. What is read
is what other tools read; TensorStore finds the credentials themselves. Workers use their own environment.

==== ================================================= ==========================================================
s3   AWS_ENDPOINT_URL_S3, else AWS_ENDPOINT_URL        another server than Amazon's (MinIO, Ceph, R2)
s3   AWS_REGION, else AWS_DEFAULT_REGION               region of that server, else us-east-1; Amazon's buckets are
                                                       asked for their region
s3   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...     credentials; then the profile AWS_PROFILE of the files
                                                       ~/.aws/config and credentials; then the machine's role
s3   AWS_NO_SIGN_REQUEST=1                             no credentials at all: public buckets
gs   GOOGLE_APPLICATION_CREDENTIALS, ...               application default credentials, else the machine's role
gs   TENSORSTORE_GCS_HTTP_URL                          another server than Google's
==== ================================================= ==========================================================

Where no credentials are found requests go out unsigned, which public buckets answer.
"""

from __future__ import annotations

import os
from typing import Any

_YES = ("1", "true", "yes", "on")
_DEFAULT_REGION = "us-east-1"
_CREDENTIALS = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, to credentials that may; for a public "
    "bucket set AWS_NO_SIGN_REQUEST=1",
    "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key that may",
}
_SERVERS = {"s3": "AWS_ENDPOINT_URL", "gs": "TENSORSTORE_GCS_HTTP_URL"}
_REMOVERS = {"s3": "aws s3 rm --recursive", "gs": "gcloud storage rm --recursive"}


def bucket_spec(scheme: str, bucket: str, path: str) -> dict[str, Any]:
    """Return TensorStore's specification of a prefix in a bucket.

    Args:
        scheme: `s3` or `gs`.
        bucket: its name.
        path: the prefix, with its last slash.
    """
    if scheme == "gs":
        return {"driver": "gcs", "bucket": bucket, "path": path}
    spec: dict[str, Any] = {"driver": "s3", "bucket": bucket, "path": path}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or _DEFAULT_REGION
        spec |= {"endpoint": endpoint.rstrip("/"), "aws_region": region}
    profile = os.environ.get("AWS_PROFILE")
    if os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in _YES:
        spec["aws_credentials"] = {"type": "anonymous"}
    elif profile and not os.environ.get("AWS_ACCESS_KEY_ID"):
        # By name, so that a profile that does not exist is an error and not a silent try without credentials.
        spec["aws_credentials"] = {"type": "profile", "profile": profile}
    return spec


def advice(scheme: str, problem: str) -> str:
    """Return the way out of a failure at an address, from TensorStore's message about it."""
    if scheme in _SERVERS:
        if "PERMISSION_DENIED" in problem or "='401'" in problem or "redentials" in problem:
            return f"permission denied, or credentials are missing: {_CREDENTIALS[scheme]}"
        if "http_response_code='404'" in problem:
            # An object that does not exist is no failure, so what is missing is the bucket.
            return f"there is no such bucket: check its name and {_SERVERS[scheme]}, or create it"
    return "check the address and the network, then try again"


def removal(scheme: str, address: str) -> str:
    """Return the command that removes everything at an address."""
    return f"{_REMOVERS[scheme]} {address}/"
