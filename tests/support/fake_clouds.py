"""
The services and tools of clouds that give tokens, as the real libraries expect them.

Each verifies what it receives as the real one does, and refuses the rest with its real error.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, urlsplit

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.support.fake_openai import FakeOpenAI, refusal
from tests.support.serving import Asked, Says, as_json

ENTRA_RESOURCE = "https://cognitiveservices.azure.com"


def install_az(folder: Path, answer: str, status: int = 0) -> None:
    """Write a program ``az`` that prints ``answer``; it counts its calls in ``az.calls``."""
    expected = ["account", "get-access-token", "--output", "json", "--resource", ENTRA_RESOURCE]
    script = f"""#!{sys.executable}
import sys, pathlib
pathlib.Path({str(folder / "az.calls")!r}).open("a").write("call\\n")
if sys.argv[1:] != {expected!r}:
    sys.exit(f"unrecognized arguments: {{sys.argv[1:]}}")
print({answer!r}, file=sys.stdout if {status} == 0 else sys.stderr)
sys.exit({status})
"""
    program = folder / "az"
    program.write_text(script, "utf-8")
    program.chmod(0o755)


def az_answer(token: str, lifetime_s: float = 3600) -> str:
    """The output of ``az account get-access-token``."""
    expires_on = int(time.time() + lifetime_s)
    local = datetime.fromtimestamp(expires_on).strftime("%Y-%m-%d %H:%M:%S.000000")  # noqa: DTZ006
    return json.dumps(
        {
            "accessToken": token,
            "expiresOn": local,
            "expires_on": expires_on,
            "subscription": "00000000-0000-0000-0000-000000000000",
            "tenant": "00000000-0000-0000-0000-000000000000",
            "tokenType": "Bearer",
        }
    )


class AppService:
    """The token endpoint of a machine of Azure App Service."""

    def __init__(self, token: str, secret: str) -> None:
        self.token, self.secret = token, secret

    def __call__(self, asked: Asked) -> Says:
        parts = urlsplit(asked.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if asked.headers.get("x-identity-header") != self.secret:
            return as_json({"error": {"code": "401", "message": "Unauthorized"}}, 401)
        if query != {"api-version": "2019-08-01", "resource": ENTRA_RESOURCE}:
            return as_json({"error": {"code": "400", "message": f"Bad request {query}"}}, 400)
        return as_json(
            {
                "access_token": self.token,
                "expires_on": str(int(time.time()) + 3600),
                "resource": ENTRA_RESOURCE,
                "token_type": "Bearer",
                "client_id": "00000000-0000-0000-0000-000000000000",
            }
        )


class GoogleTokens:
    """Google's token endpoint for service accounts: it verifies the signed assertion."""

    def __init__(self, *tokens: str, refuses: bool = False) -> None:
        self.tokens = list(tokens)
        self.refuses = refuses
        self.given = 0
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.email = "tests@project.iam.gserviceaccount.com"

    def write_account(self, path: Path, url: str) -> None:
        """Write the file to which GOOGLE_APPLICATION_CREDENTIALS refers."""
        private = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        account = {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": "key-of-the-test",
            "private_key": private.decode(),
            "client_email": self.email,
            "token_uri": f"{url}/token",
        }
        path.write_text(json.dumps(account), "utf-8")

    def __call__(self, asked: Asked) -> Says:
        form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        if asked.path != "/token" or set(form) != {"assertion", "grant_type"}:
            return as_json({"error": "invalid_request"}, 400)
        if form["grant_type"] != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return as_json({"error": "unsupported_grant_type"}, 400)
        claims = self._verified(form["assertion"])
        if self.refuses or claims["iss"] != self.email or claims["exp"] < time.time():
            description = "Invalid JWT Signature."
            return as_json({"error": "invalid_grant", "error_description": description}, 400)
        if claims["scope"] != "https://www.googleapis.com/auth/cloud-platform":
            return as_json({"error": "invalid_scope"}, 400)
        token = self.tokens[min(self.given, len(self.tokens) - 1)]
        self.given += 1
        answer = {"access_token": token, "expires_in": 3599, "token_type": "Bearer"}
        return as_json(answer)

    def _verified(self, assertion: str) -> Any:
        signed, _, signature = assertion.rpartition(".")
        self.key.public_key().verify(
            _decode(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
        )
        return json.loads(_decode(signed.partition(".")[2]))


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Bedrock:
    """Bedrock's OpenAI-compatible API, which accepts presigned keys of some credentials."""

    def __init__(self, region: str, *credentials: tuple[str, str, str | None]) -> None:
        self.region = region
        self.credentials = {each[0]: each for each in credentials}
        self.keys: list[dict[str, str]] = []
        self.fake = FakeOpenAI()

    def __call__(self, asked: Asked) -> Says:
        scheme, _, key = asked.headers.get("authorization", "").partition(" ")
        wrong = "Missing Authentication Token" if scheme != "Bearer" else self.wrong_with(key)
        if wrong:
            return as_json({"Message": wrong}, 403)
        self.keys.append(read_key(key))
        asked.headers["authorization"] = f"Bearer {self.fake.key}"
        if not asked.path.startswith("/openai/v1/"):
            return refusal(None, f"Unknown path {asked.path}", 404)
        asked.path = asked.path.removeprefix("/openai/v1")
        return self.fake(asked)

    def wrong_with(self, key: str) -> str:
        """Why the key is refused; empty if it is not."""
        if not key.startswith("bedrock-api-key-"):
            return "Invalid API Key format: Must start with pre-defined prefix"
        query = read_key(key)
        access_key, *scope = query["X-Amz-Credential"].split("/")
        known = self.credentials.get(access_key)
        if known is None:
            return "The security token included in the request is invalid."
        signed_at = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        lifetime_s = int(query["X-Amz-Expires"])
        if scope != [f"{signed_at:%Y%m%d}", self.region, "bedrock", "aws4_request"]:
            wrong = f"Credential should be scoped to a valid region. {scope}"
        elif not 0 < lifetime_s <= 43200:
            wrong = "X-Amz-Expires must be between 1 and 43200 seconds"
        elif datetime.now(UTC) > signed_at + timedelta(seconds=lifetime_s):
            wrong = "The security token included in the request is expired"
        elif key != signed_by_botocore(known, self.region, signed_at, lifetime_s):
            wrong = (
                "The request signature we calculated does not match the signature you provided."
            )
        else:
            wrong = ""
        return wrong


def read_key(key: str) -> dict[str, str]:
    """The query of a presigned key."""
    url = base64.b64decode(key.removeprefix("bedrock-api-key-"), validate=True).decode()
    address, _, query = url.partition("?")
    assert address == "bedrock.amazonaws.com/"
    return {name: values[0] for name, values in parse_qs(query, strict_parsing=True).items()}


def signed_by_botocore(
    credentials: tuple[str, str, str | None], region: str, now: datetime, lifetime_s: int
) -> str:
    """A key as aws-bedrock-token-generator 1.1.0 makes it: signed by botocore."""
    request = AWSRequest(
        method="POST",
        url="https://bedrock.amazonaws.com/",
        headers={"host": "bedrock.amazonaws.com"},
        params={"Action": "CallWithBearerToken"},
    )
    signer = SigV4QueryAuth(Credentials(*credentials), "bedrock", region, expires=lifetime_s)
    naive = now.replace(tzinfo=None)
    with mock.patch("botocore.auth.get_current_datetime", return_value=naive):
        signer.add_auth(request)
    url = f"{request.url.removeprefix('https://')}&Version=1"
    return f"bedrock-api-key-{base64.b64encode(url.encode()).decode()}"
