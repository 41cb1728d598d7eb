"""Pictures made and speech written down, by services that speak OpenAI's formats for them."""

from __future__ import annotations

from typing import Any

from llm_magics.attachments import Sound, Transcript
from llm_magics.errors import ProviderError
from llm_magics.http import Form, Transport
from llm_magics.providers.openai_like import OpenAILikeProvider
from llm_magics.wire import openai_media as wire


class MediaProvider(OpenAILikeProvider):
    """A service that paints and listens too."""

    async def generate_image(self, prompt: str, model: str, **options: Any) -> list[bytes]:
        """
        Pictures of ``prompt``, each as the bytes of a file.

        Args:
            options: ``n``, ``size``, ``quality``, ``background`` … as the service has them.
        """
        model = self.bare(model)
        body = wire.image_request(prompt, model, options)
        path = self._path("/images/generations", model)
        self._without_known(path, body, model)
        while True:
            try:
                reply = await self._object("POST", path, body, model)
                break
            except ProviderError as error:
                if not self._has_learned(error, path, body, model):
                    raise
        with self._reading():
            made = wire.images_of(reply)
        return [await self._fetched(each) if isinstance(each, str) else each for each in made]

    async def _fetched(self, url: str) -> bytes:
        """The picture at ``url``. The key is not sent there: it lies with somebody else."""
        if not url.startswith("https://"):
            msg = f"The service sent an address that is not safe: {url[:80]}"
            raise ProviderError(msg, provider=self.name)
        address, _, query = url.partition("#")[0].partition("?")
        elsewhere = Transport(
            address, timeouts=self.config.timeouts, query=query, limits=self.config.limits
        )
        try:
            reply = await elsewhere.send("GET", "")
        except ConnectionError as error:
            raise self._not_fetched(url, str(error)) from error
        finally:
            await elsewhere.close()
        if not reply.ok:
            raise self._not_fetched(url, f"status {reply.status}")
        return reply.body

    def _not_fetched(self, url: str, why: str) -> ProviderError:
        """Return an error that is not retried: that would pay for another image."""
        msg = f"The image was made and could not be fetched ({why})."
        return ProviderError(msg, hint=f"Fetch it yourself: {url}", provider=self.name)

    async def transcribe(self, audio: bytes, model: str, **options: Any) -> Transcript:
        """
        What is said in ``audio``, the bytes of a file.

        Args:
            options: ``format`` (``json``, ``text``, ``srt``, ``vtt``, ``verbose_json``,
                ``diarized_json``), ``language``, ``prompt``, ``temperature``,
                ``timestamp_granularities`` … as the service has them.
        """
        model = self.bare(model)
        sound = Sound(audio)
        wire.check_size(sound)
        fields, wanted = wire.transcription_fields(model, options)
        file = (sound.file_name, sound.data, sound.media_type)
        form = Form(fields, {"file": file})
        path = self._path("/audio/transcriptions", model)
        reply = await self._send("POST", path, form, model)
        said = reply.json() if reply.body.startswith(b"{") else None
        if isinstance(said, dict) and said.get("error"):  # status 200 does not make it an answer
            raise self._error(said, None, reply.headers, model)
        with self._reading():
            return wire.transcript_of(reply.body, wanted)
