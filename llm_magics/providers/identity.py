"""
Identities: short-lived tokens in place of an API key, for the setting ``token_provider``.

An identity is a name (`IDENTITIES`) or a function of the user. Text from a settings file is only
compared with the names, so that it cannot cause code to be imported or run.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import re
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from llm_magics.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionError,
    ProviderError,
    nearest,
)
from llm_magics.http import Token, TokenSource
from llm_magics.secrets import Secret, redact, register_secret, strip_whitespace
from llm_magics.settings.config import LONGEST_IDENTITY, REMOTE_FUNCTION

if TYPE_CHECKING:
    from llm_magics.providers.base import BaseModelProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """
    An identity that is known by name; `cloud_tokens` fetches its tokens.

    Attributes:
        packages: the packages that it needs, in an extra with the name of the identity.
        sign_in: the command with which a user signs in.
        variables: the environment variables that select the identity.
        rejections: the statuses with which its services reject a token.
    """

    packages: tuple[str, ...]
    sign_in: str
    variables: tuple[str, ...]
    rejections: frozenset[int] = frozenset({401})


IDENTITIES: Mapping[str, Identity] = {
    # Variables: the documentation of DefaultAzureCredential in azure-identity 1.27 (2026-11).
    "entra": Identity(
        packages=("azure-identity",),
        sign_in="az login",
        variables=(
            "AZURE_AUTHORITY_HOST",
            "AZURE_CLIENT_CERTIFICATE_PATH",
            "AZURE_CLIENT_ID",
            "AZURE_CLIENT_SECRET",
            "AZURE_FEDERATED_TOKEN_FILE",
            "AZURE_TENANT_ID",
            "AZURE_TOKEN_CREDENTIALS",
            "IDENTITY_ENDPOINT",
        ),
    ),
    # Variables: google.auth.environment_vars in google-auth 2.63 (2026-11).
    "vertex": Identity(
        packages=("google-auth", "requests"),
        sign_in="gcloud auth application-default login",
        variables=("CLOUDSDK_CONFIG", "GCE_METADATA_HOST", "GOOGLE_APPLICATION_CREDENTIALS"),
    ),
    # Variables: botocore.credentials and botocore.configprovider in botocore 1.44 (2026-11).
    "aws": Identity(
        packages=("botocore",),
        sign_in="aws sso login",
        variables=(
            "AWS_ACCESS_KEY_ID",
            "AWS_CONFIG_FILE",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_DEFAULT_REGION",
            "AWS_PROFILE",
            "AWS_REGION",
            "AWS_ROLE_ARN",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_SHARED_CREDENTIALS_FILE",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
        ),
        # Bedrock answers 403 to an invalid or expired key: github.com/BerriAI/litellm pull 37905
        # (2026-08), anthropics/claude-code issue 28032 (2026-02).
        rejections=frozenset({401, 403}),
    ),
}


# The setting ``token_provider``: the name of an identity, or a function.
TokenProvider = str | Callable[[], Any]


class TokenFunction:
    """
    A function of the user that returns a token.

    Its ``repr`` contains only its name, because its arguments may contain a key.
    """

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call

    def __call__(self) -> Any:
        return self.call()

    def __repr__(self) -> str:
        return describe_function(self.call)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenFunction) and other.call == self.call

    def __hash__(self) -> int:
        return hash((TokenFunction, id(self.call)))

    def __reduce__(self) -> NoReturn:
        msg = "a token_provider that is a function cannot be pickled"
        raise TypeError(msg)


def describe_function(function: object) -> str:
    """Return the name of a function, without its arguments, which may contain a key."""
    if isinstance(function, TokenFunction):
        function = function.call
    name = getattr(function, "__qualname__", "") or type(function).__qualname__
    return f"function {name}"


def parse_token_provider(value: object) -> str | TokenFunction | None:
    """
    Return the setting ``token_provider`` as the name of an identity, or as a function.

    Raises:
        ValueError: it is neither.
    """
    if value is None or isinstance(value, TokenFunction):
        return value
    if callable(value):
        _check_arguments(value)
        return TokenFunction(value)
    if not isinstance(value, str):
        msg = f"Use a name ({', '.join(IDENTITIES)}), or set a function from Python."
        raise ValueError(msg)  # noqa: TRY004 (pydantic reports only a ValueError)
    name = strip_whitespace(value)
    if name == REMOTE_FUNCTION:
        msg = (
            "A Python function exists only in the process that set it, not on the workers: "
            f"set a name ({', '.join(IDENTITIES)})."
        )
        raise ValueError(msg)
    if not name:
        return None
    if len(name) > LONGEST_IDENTITY:
        register_secret(name)
        msg = "It may be a token. A function that returns tokens can be set from Python."
        raise ValueError(msg)
    if name not in IDENTITIES:
        msg = f"{nearest(name, IDENTITIES)} A function can only be set from Python."
        raise ValueError(msg)
    return name


def _check_arguments(function: Callable[..., Any]) -> None:
    try:
        inspect.signature(function).bind()
    except TypeError:
        msg = "The function must be callable without arguments."
        raise ValueError(msg) from None
    except ValueError:  # a built-in function without a signature
        return


def check_only_credential(key: Secret | None, fields_set: Collection[str], address: str) -> None:
    """
    Check that a token is the only credential.

    Raises:
        ValueError: a key is set, not only in the environment, or the address contains a user.
    """
    other = ""
    if key is not None and "api_key" in fields_set:
        other = "api_key"
    elif urlsplit(address).username is not None:
        other = "a user in base_url"
    if other:
        msg = f"both {other} and token_provider are set."
        raise ValueError(msg)


def identity_variables(token_provider: object) -> tuple[str, ...]:
    """Return the environment variables on which the tokens of an identity depend."""
    known = IDENTITIES.get(token_provider) if isinstance(token_provider, str) else None
    return known.variables if known is not None else ()


def describe_identity(token_provider: object) -> str:
    """Return the identity in words, for messages and tables."""
    if callable(token_provider):
        return f"token_provider ({describe_function(token_provider)})"
    return f"token_provider {token_provider}"


def credential_name(provider: BaseModelProvider) -> str:
    """Return what signs a user in to ``provider``: its identity, or the variable of its key."""
    identity = getattr(provider.config, "token_provider", None)
    return describe_identity(identity) if identity is not None else provider.key_variable


def sign_in_hint(token_provider: TokenProvider) -> str:
    """Return what to do if the identity is missing or rejected."""
    if not isinstance(token_provider, str):
        return "Check what the function returns, and whether the identity may use the service."
    sign_in = IDENTITIES[token_provider].sign_in
    return f"Sign in with: {sign_in}. Then check that the identity may use the service."


def rejection(
    provider: str, token_provider: TokenProvider, error: AuthenticationError
) -> AuthenticationError:
    """Return the error of a service that rejected a token, with the identity and what to do."""
    msg = f"{provider} rejected the token of {describe_identity(token_provider)}: {error}"
    return AuthenticationError(msg, hint=sign_in_hint(token_provider), **error.details())


def create_source(
    provider: Callable[[], str], token_provider: TokenProvider, address: str
) -> TokenSource:
    """Return the source of tokens for the service at ``address``; ``provider`` returns its name."""
    if not isinstance(token_provider, str):
        function: Callable[[], Any] = token_provider
        if isinstance(token_provider, TokenFunction):
            function = token_provider.call

        async def call(is_rejected: bool) -> Token:
            return await _fetch(provider(), token_provider, lambda: _call(function))

        return TokenSource(fetch=call)
    identity = IDENTITIES[token_provider]
    fetchers: list[Callable[[bool], object]] = []

    def fetch_named(is_rejected: bool) -> object:
        if not fetchers:  # in this thread, because the import of such a package takes a second
            from llm_magics.providers import cloud_tokens

            fetchers.append(cloud_tokens.create_fetcher(token_provider, address))
        return fetchers[0](is_rejected)

    async def fetch(is_rejected: bool) -> Token:
        return await _fetch(
            provider(), token_provider, lambda: _run_in_thread(lambda: fetch_named(is_rejected))
        )

    return TokenSource(fetch=fetch, rejections=identity.rejections)


async def _fetch(
    provider: str,
    token_provider: TokenProvider,
    fetch: Callable[[], Awaitable[object]],
) -> Token:
    """
    Return the token from ``fetch``.

    Raises:
        ProviderError: ``fetch`` failed, or did not return a token.
    """
    what = describe_identity(token_provider)
    hint: str | None = sign_in_hint(token_provider)
    try:
        async with asyncio.timeout(_FETCH_TIMEOUT_S) as timeout:
            return parse_token(await fetch(), provider, what)
    except ProviderError as error:
        failed: ProviderError = error
        failed.provider = failed.provider or provider
    except ImportError as error:
        if not isinstance(token_provider, str):
            failed = _failure(provider, what, error, hint)
        else:
            packages = IDENTITIES[token_provider].packages
            msg = f"{what} needs {' and '.join(packages)}; {error.name} cannot be imported."
            hint = f"Run: pip install {' '.join(packages)}"
            failed = ConfigurationError(msg, hint=hint, provider=provider)
    except Exception as error:  # the function of a user, or a library, may raise any exception
        failed = _failure(provider, what, error, hint)
        if timeout.expired():
            msg = f"{provider}: {what} did not return a token within {_FETCH_TIMEOUT_S:g} s."
            failed = ConnectionError(msg, hint=hint, provider=provider)
    raise failed  # outside the handler: the original exception may contain a token


def _failure(provider: str, what: str, error: Exception, hint: str | None) -> ProviderError:
    # Foreign classes are recognised by name, because their modules may not be installed.
    names = {each.__name__ for each in type(error).__mro__}
    kind = ConnectionError if names & _NETWORK_ERRORS else AuthenticationError
    msg = f"{provider}: {what} failed ({type(error).__name__}{_reason(error)})."
    return kind(msg, hint=hint, provider=provider, code="no_token")


# Classes of azure-core, google-auth, botocore and Python for a service that did not respond.
_NETWORK_ERRORS = frozenset(
    {
        "ConnectionError",
        "HTTPClientError",
        "ServiceRequestError",
        "ServiceResponseError",
        "TransportError",
    }
)

# A function of the user may ask for a sign-in in a browser.
_FETCH_TIMEOUT_S = 300.0

# A long text of letters and digits may be a token. A GUID has 36 characters.
_MAY_BE_TOKEN = re.compile(r"(?i)(?<=bearer )\S+|(?=[^\s/]*\d)[\w+=.~%-]{40,}")
_MAX_REASON, _MAX_READ = 300, 5000  # the pattern is slow in long words
_MAX_TOKEN = 65_536  # servers accept headers of 8 to 64 KB

# A code of Microsoft Entra and its explanation.
_ENTRA_ERROR = re.compile(r"AADSTS\d+: [^.\n]+\.")


def _reason(error: Exception) -> str:
    """Return the first line of an exception's message, without what may be a token."""
    try:
        text = str(error)
    except Exception:  # of a class of the user
        return ""
    if len(text) > _MAX_READ:  # the last word may be the start of a token
        text = re.sub(r"(?<!\S)\S+\Z", "…", text[:_MAX_READ])
    text = _MAY_BE_TOKEN.sub("****", redact(text)).strip()
    lines = text.splitlines()[:1]
    # The first line of DefaultAzureCredential only says that all its credentials have failed.
    if (entra := _ENTRA_ERROR.search(text)) and entra.group() not in lines[0]:
        lines.append(entra.group())
    words = " ".join(" ".join(lines).split()).rstrip(".")
    if len(words) > _MAX_REASON:
        words = f"{words[:_MAX_REASON]} …"
    return f": {words}" if words else ""


async def _call(function: Callable[[], Any]) -> object:
    """Call a function of the user: on this event loop if it is async, otherwise in a thread."""
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 (an object may have an async __call__)
    )
    result = function() if is_async else await _run_in_thread(function)
    return await result if inspect.isawaitable(result) else result


async def _run_in_thread(function: Callable[[], object]) -> object:
    """Return the result of ``function``, run in a thread that does not delay the end of Python."""
    finished: Future[tuple[object, Exception | None]] = Future()
    finished.set_running_or_notify_cancel()

    def run() -> None:
        try:
            finished.set_result((function(), None))
        except Exception as error:
            finished.set_result((None, error))
        except BaseException as error:  # such as SystemExit, which must not end the event loop
            finished.set_result((None, RuntimeError(type(error).__name__)))

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="llm_magics-token", daemon=True).start()
    result, error = await asyncio.wrap_future(finished)
    if isinstance(error, StopIteration):
        msg = "StopIteration"
        raise RuntimeError(msg)  # noqa: TRY004 (a coroutine cannot raise StopIteration)
    if error is not None:
        raise error
    return result


def parse_token(result: object, provider: str, what: str) -> Token:
    """
    Return a token from what a function returned: text, or text and the time when it expires.

    Raises:
        AuthenticationError: ``result`` is something else. The message does not contain it.
    """
    text, expiry = _split_result(result)
    wrong = ""
    if isinstance(text, Secret):
        text = text.reveal()
    if not isinstance(text, str):
        wrong = f"a value of the type {type(text).__name__}"
    elif not (token := strip_whitespace(text)):
        wrong = "an empty text"
    elif len(token) > _MAX_TOKEN:
        wrong = f"a text of {len(token):,} characters"
    elif not re.fullmatch(r"[!-~]+", token):
        wrong = "a text with spaces, line breaks or special characters"
        if token.lower().startswith("bearer "):
            wrong = 'a text that starts with "Bearer "'
    elif (problem := _expiry_problem(expiry)) is not None:
        wrong = problem
    else:
        return Token(Secret(token), _unix_time(expiry))
    msg = f"{provider}: {what} returned {wrong}."
    hint = "Return the token as a str, or a tuple of the token and the Unix time when it expires."
    raise AuthenticationError(msg, hint=hint, provider=provider, code="no_token")


def _split_result(result: object) -> tuple[object, object]:
    """Return the token and its expiry from a tuple, or an object with these attributes."""
    if isinstance(result, tuple) and len(result) == 2:  # such as AccessToken of azure-core
        return result[0], result[1]
    if isinstance(result, str | Secret) or not hasattr(result, "token"):
        return result, None
    expiry = getattr(result, "expires_on", None) or getattr(result, "expiry", None)
    return result.token, expiry


def _expiry_problem(expiry: object) -> str | None:
    """Return what is wrong with the expiry of a token; ``None`` if nothing."""
    if isinstance(expiry, bool) or not isinstance(expiry, int | float | datetime | None):
        return f"a token whose expiry is of the type {type(expiry).__name__}"
    seconds = _unix_time(expiry)
    if seconds is None:
        return None
    if not _FIRST_TIME < seconds < _LAST_TIME:
        return "a token whose expiry is not a Unix time in seconds"
    if seconds <= time.time():
        return f"a token that expired at {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    return None


# Unix times of the years 2001 and 2286. A number outside is a duration, or in milliseconds.
_FIRST_TIME, _LAST_TIME = 1e9, 1e10


def _unix_time(expiry: object) -> float | None:
    if isinstance(expiry, datetime):  # google-auth returns UTC without a time zone
        return (expiry if expiry.tzinfo else expiry.replace(tzinfo=UTC)).timestamp()
    return float(expiry) if isinstance(expiry, int | float) else None
