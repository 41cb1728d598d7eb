"""
Tokens of the identities known by name, from the libraries of their clouds.

The libraries block, so these functions run in a thread. They find the identity where the tools of
the cloud find it: in variables, in files, and in the services of its machines.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

from llm_magics.errors import AuthenticationError, ConfigurationError

# Returns a token and its expiry. The argument is whether the last one was rejected.
Fetcher = Callable[[bool], object]


def create_fetcher(name: str, address: str) -> Fetcher:
    """
    Return the fetcher of the identity called ``name``, for the service at ``address``.

    Raises:
        ImportError: the package that it needs is not installed.
    """
    if name == "entra":
        return _entra_fetcher()
    return _vertex_fetcher() if name == "vertex" else _aws_fetcher(address)


# Source: learn.microsoft.com, "How to configure Azure OpenAI with Microsoft Entra ID" (2026-11).
_ENTRA_SCOPE = "https://cognitiveservices.azure.com/.default"


def _entra_fetcher() -> Fetcher:
    from azure.identity import DefaultAzureCredential

    # Without a handler, Python would print its warnings below the cell. The error has the reason.
    logging.getLogger("azure.identity").addHandler(logging.NullHandler())
    known: list[Any] = []

    def fetch(is_rejected: bool) -> object:
        if is_rejected and known:  # a credential returns the rejected token from its cache
            known.pop().close()
        if not known:
            known.append(DefaultAzureCredential())
        return known[0].get_token(_ENTRA_SCOPE)

    return fetch


# Source: cloud.google.com, "Authenticate to Vertex AI" with the OpenAI libraries (2026-11).
_VERTEX_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def _vertex_fetcher() -> Fetcher:
    import google.auth
    from google.auth.transport.requests import Request

    def fetch(is_rejected: bool) -> object:
        credentials, _ = google.auth.default(scopes=[_VERTEX_SCOPE])
        credentials.refresh(Request())
        return credentials.token, credentials.expiry

    return fetch


# The longest life of a key, which AWS limits to 12 hours. A new key costs no request, so that a
# short life has no price.
_AWS_LIFETIME_S = 3600

# The region is a part of the host: bedrock-runtime.eu-west-1.amazonaws.com, …api.aws.
_AWS_HOST = re.compile(r"(?:^|\.)bedrock[a-z-]*\.([a-z0-9-]+)\.(?:amazonaws\.com|api\.aws)$")


def _aws_fetcher(address: str) -> Fetcher:
    from botocore.session import Session

    known: list[Any] = []

    def fetch(is_rejected: bool) -> object:
        if is_rejected:  # the user may have signed in again
            known.clear()
        if not known:
            known.append(Session())
        session = known[0]
        credentials = session.get_credentials()
        if credentials is None:
            msg = "token_provider aws found no AWS credentials."
            hint = "Sign in with: aws sso login. Or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            raise AuthenticationError(msg, hint=hint, code="no_token")
        region = _aws_region(address, session)
        frozen = credentials.get_frozen_credentials()
        # botocore has no public attribute for the expiry.
        expiry: datetime | None = getattr(credentials, "_expiry_time", None)
        now = time.time()
        left_s = _AWS_LIFETIME_S if expiry is None else expiry.timestamp() - now
        lifetime_s = int(min(_AWS_LIFETIME_S, left_s))
        if lifetime_s < 1:
            known.clear()
            msg = "The AWS credentials have expired."
            raise AuthenticationError(msg, hint="Sign in with: aws sso login.", code="no_token")
        key = presign_bedrock_key(
            (frozen.access_key, frozen.secret_key, frozen.token),
            region,
            now=datetime.fromtimestamp(now, UTC),
            lifetime_s=lifetime_s,
        )
        return key, now + lifetime_s

    return fetch


def _aws_region(address: str, session: Any) -> str:
    """Return the region in ``address``, otherwise the one that the user has set."""
    import os

    found = _AWS_HOST.search(urlsplit(address).hostname or "")
    region = found.group(1) if found else os.environ.get("AWS_REGION")
    region = region or session.get_config_variable("region")
    if not region:
        msg = "token_provider aws needs an AWS region."
        raise ConfigurationError(msg, hint="Set the environment variable AWS_REGION.")
    return str(region)


_AWS_SERVICE, _AWS_KEY_HOST = "bedrock", "bedrock.amazonaws.com"
_EMPTY_BODY = hashlib.sha256(b"").hexdigest()


def presign_bedrock_key(
    credentials: tuple[str, str, str | None], region: str, *, now: datetime, lifetime_s: int
) -> str:
    """
    Return a Bedrock API key: a request ``CallWithBearerToken``, presigned and encoded.

    botocore can sign too, but logs the signature and the session's token at the level DEBUG.
    Sources: aws-bedrock-token-generator 1.1.0; "Create a signed AWS API request" in the AWS IAM
    user guide (2026-11).

    Args:
        credentials: the access key, the secret key, and the token of a temporary session.
        region: the region in which the key is valid.
        now: the current time, in UTC.
        lifetime_s: the life of the key in seconds, at most 12 hours.
    """
    access_key, secret_key, session_token = credentials
    date, timestamp = f"{now:%Y%m%d}", f"{now:%Y%m%dT%H%M%SZ}"
    scope = f"{date}/{region}/{_AWS_SERVICE}/aws4_request"
    query = {
        "Action": "CallWithBearerToken",
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{access_key}/{scope}",
        "X-Amz-Date": timestamp,
        "X-Amz-Expires": str(lifetime_s),
        "X-Amz-SignedHeaders": "host",
    }
    if session_token is not None:
        query["X-Amz-Security-Token"] = session_token
    encoded = [f"{name}={quote(value, safe='-_.~')}" for name, value in query.items()]
    canonical = "\n".join(
        ["POST", "/", "&".join(sorted(encoded)), f"host:{_AWS_KEY_HOST}", "", "host", _EMPTY_BODY]
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{timestamp}\n{scope}\n{digest}"
    key = f"AWS4{secret_key}".encode()
    for part in (date, region, _AWS_SERVICE, "aws4_request", to_sign):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    url = f"{_AWS_KEY_HOST}/?{'&'.join(encoded)}&X-Amz-Signature={key.hex()}&Version=1"
    return f"bedrock-api-key-{base64.b64encode(url.encode()).decode()}"
