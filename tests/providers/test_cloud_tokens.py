"""The identities known by name, with the real libraries of their clouds."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_magics as lm
from llm_magics import errors
from llm_magics.providers import cloud_tokens, create_provider
from llm_magics.providers.identity import IDENTITIES
from tests.support.examples import examples
from tests.support.fake_clouds import (
    AppService,
    Bedrock,
    GoogleTokens,
    az_answer,
    install_az,
    read_key,
    signed_by_botocore,
)
from tests.support.fake_openai import FakeOpenAI, refusal
from tests.support.serving import Asked, Says, Server, as_json, serving

TOKEN = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.canary-5d1f0c77e2"
KEYS = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None)


@pytest.fixture(autouse=True)
def no_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No identity of this machine or its user is found."""
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


class Service:
    """A service that accepts one token, in the header of OAuth."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.fake = FakeOpenAI()

    def __call__(self, asked: Asked) -> Says:
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            return refusal("401", "Access token is missing, invalid, or expired.", 401)
        asked.headers["authorization"] = f"Bearer {self.fake.key}"
        return self.fake(asked)


def listed(server: Server, token_provider: str, path: str = "", times: int = 1) -> list[str]:
    """The models of a service, asked for with an identity."""

    async def ask() -> list[str]:
        made = create_provider("openai", base_url=f"{server.url}{path}", token_provider=token_provider)  # fmt: skip
        try:
            for _ in range(times):
                models = await made.list_models()
            return models
        finally:
            await made.close()

    return asyncio.run(ask())


def test_entra_by_the_azure_cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The token of ``az`` is used until it expires; the program runs once."""
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
    install_az(tmp_path, az_answer(TOKEN))
    with serving(Service(TOKEN)) as server:
        assert listed(server, "entra", times=3)
    assert (tmp_path / "az.calls").read_text() == "call\n"


def test_entra_by_a_managed_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a machine, from the endpoint that its variables name."""
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    with serving(AppService(TOKEN, "secret-of-the-machine")) as machine, serving(Service(TOKEN)) as server:  # fmt: skip
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{machine.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "secret-of-the-machine")
        assert listed(server, "entra", times=2)
        assert len(machine.asked) == 1


def test_a_rejected_token_of_entra_is_not_taken_from_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """azure-identity keeps the token of a managed identity; a new credential asks again."""
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    app = AppService("eyJ-token-of-yesterday", "secret-of-the-machine")
    service = Service("eyJ-token-of-yesterday")

    async def ask() -> None:
        made = create_provider("openai", base_url=server.url, token_provider="entra")
        await made.list_models()
        app.token = service.token = TOKEN
        assert await made.list_models()
        await made.close()

    with serving(app) as machine, serving(service) as server:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{machine.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "secret-of-the-machine")
        asyncio.run(ask())
        assert len(machine.asked) == 2


def test_without_a_sign_in_to_azure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error names the identity and the command; nothing is sent to the service."""
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
    install_az(tmp_path, "ERROR: Please run 'az login' to setup account.", 1)
    with serving(Service(TOKEN)) as server:
        with pytest.raises(errors.AuthenticationError, match="token_provider entra") as caught:
            listed(server, "entra")
        assert server.asked == []
    assert "az login" in str(caught.value.hint)


def test_the_warnings_of_azure_are_not_printed() -> None:
    """In a process without handlers, Python prints those of any logger."""
    script = """
from llm_magics.providers.cloud_tokens import create_fetcher
try:
    create_fetcher("entra", "")(False)
except Exception as error:
    print(type(error).__name__)
"""
    environment = {**os.environ, "AZURE_TOKEN_CREDENTIALS": "AzureCliCredential", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)  # fmt: skip
    assert "Error" in done.stdout
    assert not done.stderr


def test_vertex_by_a_service_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """google-auth signs the request for the token; a rejected token is replaced."""
    tokens = GoogleTokens("ya29.token-of-yesterday", TOKEN)
    account = tmp_path / "account.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
    with serving(tokens) as google, serving(Service(TOKEN)) as server:
        tokens.write_account(account, google.url)
        assert listed(server, "vertex", times=3)
    assert tokens.given == 2


def test_without_a_sign_in_to_google(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials, or credentials that Google refuses."""
    with serving(Service(TOKEN)) as server:
        with pytest.raises(errors.AuthenticationError, match="DefaultCredentialsError") as caught:
            listed(server, "vertex")
        assert "gcloud auth application-default login" in str(caught.value.hint)
        tokens = GoogleTokens(TOKEN, refuses=True)
        with serving(tokens) as google:
            account = tmp_path / "account.json"
            tokens.write_account(account, google.url)
            monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
            with pytest.raises(errors.AuthenticationError, match="Invalid JWT Signature"):
                listed(server, "vertex")
        # The sign-in service does not respond: this may pass.
        with pytest.raises(errors.ConnectionError, match="TransportError"):
            listed(server, "vertex")
        assert server.asked == []


def set_aws(monkeypatch: pytest.MonkeyPatch, credentials: tuple[str, str, str | None]) -> None:
    """Set the variables of AWS."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", credentials[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", credentials[1])
    if credentials[2] is not None:
        monkeypatch.setenv("AWS_SESSION_TOKEN", credentials[2])


def test_aws_by_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that lives for an hour, in the region of the user."""
    set_aws(monkeypatch, KEYS)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    bedrock = Bedrock("eu-west-1", KEYS)
    with serving(bedrock) as server:
        assert listed(server, "aws", "/openai/v1", times=3)
    assert {key["X-Amz-Expires"] for key in bedrock.keys} == {"3600"}
    assert len({key["X-Amz-Signature"] for key in bedrock.keys}) == 1


def test_a_key_does_not_outlive_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary credentials expire, and with them the keys that they have signed."""
    temporary = ("ASIAIOSFODNN7EXAMPLE", "a/secret+of=the test", "token/of+the session==")
    set_aws(monkeypatch, temporary)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    until = datetime.now(UTC) + timedelta(minutes=20)
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", until.strftime("%Y-%m-%dT%H:%M:%SZ"))
    bedrock = Bedrock("us-east-1", temporary)
    with serving(bedrock) as server:
        assert listed(server, "aws", "/openai/v1")
    (key,) = bedrock.keys
    assert 1100 < int(key["X-Amz-Expires"]) <= 1200
    assert key["X-Amz-Security-Token"] == temporary[2]


def test_aws_by_a_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program of the profile gives the credentials, and the profile the region."""
    program = tmp_path / "credentials.py"
    said = {"Version": 1, "AccessKeyId": KEYS[0], "SecretAccessKey": KEYS[1]}
    program.write_text(f"print({json.dumps(said)!r})", "utf-8")
    config = (
        f"[profile lab]\nregion = ap-south-1\ncredential_process = {sys.executable} {program}\n"
    )
    (tmp_path / "aws-config").write_text(config, "utf-8")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    with serving(Bedrock("ap-south-1", KEYS)) as server:
        assert listed(server, "aws", "/openai/v1")


def test_an_invalid_key_of_aws_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bedrock says 403. The user has signed in again in the meantime."""
    set_aws(monkeypatch, KEYS)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    later = ("AKIAI44QH8DHBEXAMPLE", "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY", None)
    bedrock = Bedrock("eu-west-1", KEYS)

    async def ask() -> None:
        made = create_provider("openai", base_url=f"{server.url}/openai/v1", token_provider="aws")
        await made.list_models()
        bedrock.credentials = {later[0]: later}
        set_aws(monkeypatch, later)
        assert await made.list_models()
        bedrock.credentials = {}
        with pytest.raises(errors.AuthenticationError, match="token_provider aws") as caught:  # fmt: skip
            await made.list_models()
        assert "aws sso login" in str(caught.value.hint)
        await made.close()

    with serving(bedrock) as server:
        asyncio.run(ask())
        assert len(server.asked) == 4


def test_without_a_sign_in_to_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials, no region: each error says what to set."""
    with serving(Bedrock("eu-west-1", KEYS)) as server:
        with pytest.raises(errors.AuthenticationError, match="no AWS credentials") as caught:
            listed(server, "aws")
        assert "aws sso login" in str(caught.value.hint)
        set_aws(monkeypatch, KEYS)
        with pytest.raises(errors.ConfigurationError, match="region") as missing:
            listed(server, "aws")
        assert "AWS_REGION" in str(missing.value.hint)
        assert server.asked == []


@pytest.mark.parametrize(
    ("address", "region"),
    [
        ("https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1", "eu-west-1"),
        ("https://bedrock-mantle.us-east-2.api.aws/v1", "us-east-2"),
        ("https://vpce-1.bedrock-runtime.us-gov-west-1.amazonaws.com/openai/v1", "us-gov-west-1"),
        ("https://bedrock.eu-west-1.amazonaws.com.proxy.example/v1", "ap-south-1"),
        ("https://proxy.example/bedrock.eu-west-1.amazonaws.com", "ap-south-1"),
    ],
)
def test_the_region_is_that_of_the_address(
    monkeypatch: pytest.MonkeyPatch, address: str, region: str
) -> None:
    """A key is valid in one region only."""
    set_aws(monkeypatch, KEYS)
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    key, _ = cloud_tokens.create_fetcher("aws", address)(False)  # type: ignore[misc]
    assert read_key(key)["X-Amz-Credential"].split("/")[2] == region


TEXTS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)


@settings(max_examples=examples(40))
@given(
    access_key=st.from_regex(r"A[A-Z0-9]{15,31}", fullmatch=True),
    secret_key=TEXTS,
    session_token=st.none() | TEXTS,
    region=st.from_regex(r"[a-z]{2}(-[a-z]{3,9}){1,2}-[1-9]", fullmatch=True),
    now=st.datetimes(datetime(2020, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    lifetime_s=st.integers(1, 43200),
)
def test_a_key_is_signed_as_botocore_signs_it(
    access_key: str,
    secret_key: str,
    session_token: str | None,
    region: str,
    now: datetime,
    lifetime_s: int,
) -> None:
    """For all credentials, regions and times."""
    credentials = (access_key, secret_key, session_token)
    own = cloud_tokens.presign_bedrock_key(credentials, region, now=now, lifetime_s=lifetime_s)
    assert own == signed_by_botocore(credentials, region, now, lifetime_s)
    assert own.isascii()
    assert own.isprintable()


def test_no_library_logs_a_token(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """At the level DEBUG, botocore's own signer would."""
    caplog.set_level(logging.DEBUG)
    set_aws(monkeypatch, ("ASIAIOSFODNN7EXAMPLE", KEYS[1], "canary-of-the-session"))
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    key, _ = cloud_tokens.create_fetcher("aws", "")(False)  # type: ignore[misc]
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
    install_az(tmp_path, az_answer(TOKEN))
    cloud_tokens.create_fetcher("entra", "")(False)
    signature = read_key(key)["X-Amz-Signature"]
    for secret in (signature, "canary-of-the-session", TOKEN, KEYS[1]):
        assert secret not in caplog.text


@pytest.mark.parametrize(
    ("name", "module"), [("entra", "azure.identity"), ("vertex", "google.auth"), ("aws", "botocore.session")]
)  # fmt: skip
def test_without_its_package(monkeypatch: pytest.MonkeyPatch, name: str, module: str) -> None:
    """The error has the line that installs it."""
    monkeypatch.setitem(sys.modules, module, None)
    with serving(Service(TOKEN)) as server:
        with pytest.raises(
            errors.ConfigurationError, match=IDENTITIES[name].packages[0]
        ) as caught:
            listed(server, name)
        assert caught.value.hint == f"Run: pip install {' '.join(IDENTITIES[name].packages)}"
        assert server.asked == []


def test_a_slow_import_does_not_block_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages are imported in the thread that fetches the token."""
    has_gone_on = threading.Event()

    def slow(name: str, address: str) -> Any:
        assert has_gone_on.wait(30)
        return lambda is_rejected: TOKEN

    monkeypatch.setattr(cloud_tokens, "create_fetcher", slow)

    async def ask() -> None:
        made = create_provider("openai", base_url=server.url, token_provider="entra")
        asking = asyncio.create_task(made.list_models())
        for _ in range(10):
            await asyncio.sleep(0.005)
        has_gone_on.set()
        await asking
        await made.close()

    with serving(Service(TOKEN)) as server:
        asyncio.run(ask())


def test_the_address_of_vertex_depends_on_the_location(monkeypatch: pytest.MonkeyPatch) -> None:
    """A region has a host, and so have ``global`` and the multi-regions."""
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "lab-1")
    made = create_provider("vertex")
    start = "https://aiplatform.googleapis.com/v1/projects/lab-1/locations/global"
    assert made.address == f"{start}/endpoints/openapi"
    assert made.config.token_provider == "vertex"  # type: ignore[attr-defined]
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "europe-west4")
    host = "europe-west4-aiplatform.googleapis.com"
    assert create_provider("vertex").address.startswith(f"https://{host}/v1/projects/lab-1/locations/europe-west4/")  # fmt: skip
    made = create_provider("vertex", location="eu", project="lab-2")
    assert made.address.startswith("https://aiplatform.eu.rep.googleapis.com/v1/projects/lab-2/locations/eu/")  # fmt: skip


def test_vertex_is_used_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``vertex/google/gemini-…``: the model's own name has a slash."""
    tokens = GoogleTokens(TOKEN)
    account = tmp_path / "account.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
    service = Service(TOKEN)
    service.fake.models = ("google/gemini-3.8-flash",)
    with serving(tokens) as google, serving(service) as server:
        tokens.write_account(account, google.url)
        lm.config.set("providers.vertex.project", "lab-1")
        lm.config.set("providers.vertex.base_url", server.url)
        with pytest.raises(errors.AuthenticationError, match="Access token is missing"):
            lm.ask("hi", model="vertex/google/gemini-3.8-flash")
        lm.config.set("providers.vertex.token_provider", "vertex")
        assert lm.ask("hi", model="vertex/google/gemini-3.8-flash", max_tokens=2).text


def test_vertex_by_its_own_api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The provider gemini at an address of Vertex AI, with the token in place of its key."""
    tokens = GoogleTokens(TOKEN)
    account = tmp_path / "account.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
    start = "/v1/projects/lab-1/locations/global/publishers/google"

    def answer(asked: Asked) -> Says:
        is_signed = asked.headers.get("authorization") == f"Bearer {TOKEN}"
        if not is_signed or "x-goog-api-key" in asked.headers:
            error = {"code": 401, "message": "Invalid credentials.", "status": "UNAUTHENTICATED"}
            return as_json({"error": error}, 401)
        assert asked.path == f"{start}/models/gemini-3.8-flash:streamGenerateContent?alt=sse"
        part = {"content": {"role": "model", "parts": [{"text": "hello"}]}, "finishReason": "STOP"}
        return Says([f"data: {json.dumps({'candidates': [part]})}\n\n".encode()])

    with serving(tokens) as google, serving(answer) as server:
        tokens.write_account(account, google.url)
        lm.config.providers = {
            "cloud": {
                "type": "gemini",
                "base_url": f"{server.url}{start}",
                "token_provider": "vertex",
            }
        }
        assert lm.ask("hi", model="cloud/gemini-3.8-flash").text == "hello"
