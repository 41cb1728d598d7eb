"""The common base of providers over HTTP: requests, errors and health check."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from llm_magics._util.text import quote_word
from llm_magics.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionError,
    ModelNotFoundError,
    ProviderError,
    nearest,
)
from llm_magics.http import KeyHeader, Reply, TokenSource, Transport
from llm_magics.providers.base import StreamingProvider
from llm_magics.providers.configs import settings_digest
from llm_magics.providers.identity import (
    create_source,
    describe_identity,
    rejection,
)
from llm_magics.providers.remote_config import RemoteConfig
from llm_magics.providers.streaming import DecoderFactory, stream_chunks
from llm_magics.providers.tiers import FLEX_IDLE_S, explain_tier_error, tier_in
from llm_magics.settings import hosted_secrets
from llm_magics.types import StreamChunk
from llm_magics.wire.decoders import DECODING_ERRORS, is_error_body

# The services' names of the parameter for the tier.
_TIER_NAMES = frozenset({"service_tier", "serviceTier"})

# Settings that cannot affect an answer.
_TRANSPORT_SETTINGS = {
    "api_key",
    "concurrency",
    "connect_s",
    "idle_s",
    "max_line_mb",
    "max_response_mb",
    "requests_per_minute",
    "token_provider",
    "tokens_per_minute",
    "total_s",
}


class RemoteProvider(StreamingProvider):
    """A provider over HTTP: it sends requests, reads responses, and maps errors to exceptions."""

    config: RemoteConfig
    # The service's address, unless the user sets another.
    usual_address: ClassVar[str] = ""
    # The address that requires a key; empty if the service is the user's own server.
    own_address: ClassVar[str] = ""
    # How to start the service, for the error if it does not respond.
    start_hint: ClassVar[str] = ""

    def __init__(self, config: RemoteConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        address, _, query = self.config.base_url.partition("?")
        self._transport = Transport(
            address,
            headers={**self._headers(), **self.config.extra_headers},
            key=self.config.api_key,
            tokens=self._token_source(),
            timeouts=self.config.timeouts,
            key_header=self._key_header(),
            query={**dict(parse_qsl(query)), **self._query()},
            limits=self.config.limits,
        )

    @property
    def address(self) -> str:
        parts = urlsplit(self.config.base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")

    async def identity(self, model: str) -> str:
        """Return a digest of the settings that can affect the answer, without credentials."""
        return settings_digest(self._answer_settings())

    async def former_identity(self, model: str) -> str:
        return json.dumps(self._answer_settings(), sort_keys=True)

    def _answer_settings(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json", exclude=_TRANSPORT_SETTINGS)

    def _headers(self) -> Mapping[str, str]:
        """Return the headers of every request."""
        return {}

    def _query(self) -> Mapping[str, str]:
        """Return the query parameters of every request."""
        return {}

    def _key_header(self) -> KeyHeader:
        """Return the header for the key."""
        return KeyHeader()

    def _token_source(self) -> TokenSource | None:
        identity = self.config.token_provider
        if identity is None:
            return None
        # The name is read later: a provider from a settings file is named after its creation.
        return create_source(lambda: self.name, identity, self.config.base_url)

    @property
    def _has_credential(self) -> bool:
        return self.config.api_key is not None or self.config.token_provider is not None

    @abstractmethod
    def _refused(
        self, said: Any, status: int | None, headers: Mapping[str, str], model: str
    ) -> ProviderError:
        """Map an error response to an exception; ``status`` is ``None`` inside a stream."""

    @property
    def is_set_up(self) -> bool:
        return self._has_credential or self.config.base_url != self.usual_address

    @property
    def _needs_key(self) -> bool:
        return self.config.base_url == self.own_address and not self._has_credential

    async def initialize(self) -> bool:
        return not self._needs_key

    async def health_check(self) -> dict[str, Any]:
        try:
            return {"status": "ok", **await self._health()}
        except ProviderError as error:
            return {"status": "unavailable", "detail": f"{error} {error.hint or ''}".strip()}

    async def _health(self) -> dict[str, Any]:
        """Return the health of a reachable service: ``detail`` in words, and other fields."""
        models = await self.list_models()
        identity = self.config.token_provider
        how = f", signed in by {describe_identity(identity)}" if identity is not None else ""
        return {"detail": f"{len(models)} models at {self.address}{how}", "models": models}

    async def _unlisted_health(self) -> dict[str, Any]:
        """Return the health of a service without a list of models: whether there is a key."""
        self._need_key()
        what = "a key is set"
        if self._transport.tokens is not None:
            await self._transport.tokens.token()
            what = f"signed in by {describe_identity(self.config.token_provider)}"
        detail = f"{what}; {self.address} has no list of models to test it with"
        return {"detail": detail, "models": []}

    async def _send(
        self,
        method: str,
        path: str,
        body: Any = None,
        model: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one request and return the reply; an error status raises an exception."""
        self._need_key()
        try:
            reply = await self._transport.send(method, path, body, headers)
        except ConnectionError as error:
            raise await self._explain_broken(error) from None
        if not reply.ok:
            refused = self._error(reply.json(), reply.status, reply.headers, model)
            raise await self._explain_broken(refused)
        return reply

    async def _object(
        self, method: str, path: str, body: Any = None, model: str = ""
    ) -> dict[str, Any]:
        """Send one request and return the JSON object in the reply."""
        reply = await self._send(method, path, body, model)
        return await self._object_in(reply.json(), reply, model)

    async def _object_in(self, said: Any, reply: Reply, model: str) -> dict[str, Any]:
        if isinstance(said, list) and is_error_body(said):  # Google sends errors in a list
            raise await self._explained(self._error(said, None, reply.headers, model))
        if not isinstance(said, dict):
            raise self._foreign(said)
        if said.get("error"):  # errors may have status 200
            raise await self._explained(self._error(said, None, reply.headers, model))
        return said

    @contextmanager
    def _reading(self, *, retryable: bool = False) -> Iterator[None]:
        """Convert an error while reading a response to a `ProviderError`."""
        try:
            yield
        except DECODING_ERRORS as error:
            msg = f"{self.name} sent an invalid response: {type(error).__name__}: {error}"
            raise ProviderError(
                msg,
                hint="Check the provider's base_url.",
                provider=self.name,
                retryable=retryable,
                may_be_billed=True,
            ) from error

    def _chunks(
        self,
        path: str,
        body: dict[str, Any],
        model: str,
        create_decoder: DecoderFactory,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[StreamChunk, None]:
        """Return the answer to ``POST body`` as a stream of chunks."""
        self._need_key()
        tier = tier_in(body) if _TIER_NAMES & body.keys() else ""
        has_own_idle = "idle_s" in self.config.model_fields_set
        return stream_chunks(
            self._transport,
            path,
            body,
            create_decoder,
            lambda said, status, sent: explain_tier_error(
                self._error(said, status, sent, model), tier
            ),
            headers=headers,
            explain=self._explain_broken,
            idle_s=FLEX_IDLE_S if tier and not has_own_idle else None,
        )

    async def _explain_broken(self, error: ProviderError) -> ProviderError:
        if isinstance(error, ConnectionError):
            return self._unreachable(error)
        return await self._explained(error)

    def _error(
        self, said: Any, status: int | None, headers: Mapping[str, str], model: str
    ) -> ProviderError:
        """Map an error to an exception; an authentication error's hint names the key's setting."""
        error = self._refused(said, status, headers, model)
        if isinstance(error, AuthenticationError):
            identity = self.config.token_provider
            if identity is not None:
                return rejection(self.name, identity, error)
            sent = self.config.api_key is not None
            what = "Check the key" if sent else "No key was sent: set it"
            error.hint = f"{what} in {self.key_variable}, or as providers.{self.name}.api_key."
            if not sent and (add := hosted_secrets.instructions(self.key_variable)):
                error.hint = f"No key was sent. {add}, and run %llm key {self.name}."
        return error

    def _need_key(self) -> None:
        if self._needs_key:
            msg = f"{self.name} needs an API key, but none is set."
            hint = (
                f"Run %llm key {self.name}, or set the environment variable {self.key_variable}."
            )
            if add := hosted_secrets.instructions(self.key_variable):
                hint = f"{add}, and run %llm key {self.name}."
            raise AuthenticationError(msg, hint=hint, provider=self.name, code="no_key")

    async def _explained(self, error: ProviderError) -> ProviderError:
        """Return ``error``; for a missing model, with similar models in the hint."""
        if not isinstance(error, ModelNotFoundError) or not error.model:
            return error
        try:
            models = await self.list_models()
        except ProviderError:
            error.hint = error.hint or self._missing_hint(error.model, [])
            return error
        error.hint = self._missing_hint(error.model, models)
        return error

    def _missing_hint(self, model: str, models: list[str]) -> str:
        if "pull" not in self.capabilities:
            return nearest(model, models)
        guess = nearest(model, models, listed=False)
        spelled = quote_word(f"{self.name}/{model}")
        return f"{guess} Download it with: %llm pull {spelled}".strip() if spelled else guess

    def _unreachable(self, error: ConnectionError) -> ConnectionError:
        hint = self.start_hint if error.code == "unreachable" and self.start_hint else error.hint
        details = {**error.details(), "provider": self.name}
        return ConnectionError(str(error), hint=hint, **details)

    def _foreign(self, said: Any) -> ConfigurationError:
        msg = f"The server at {self.address} is not {self.name}: {str(said)[:60]!r}"
        hint = f"Check providers.{self.name}.base_url; a proxy may have answered instead."
        return ConfigurationError(
            # Retryable, because a proxy may answer only once in place of the service; it may have
            # passed the request on.
            msg,
            hint=hint,
            provider=self.name,
            body=said,
            retryable=True,
            may_be_billed=True,
        )

    async def close(self) -> None:
        await self._transport.close()
