"""
The batch API of Azure OpenAI.

Facts of November 2026, from https://learn.microsoft.com/azure/foundry/openai/how-to/batch: the model
is a deployment for batch jobs; embeddings are not supported; jobs do not expire; a file can be used
when it is processed. The page allows 100,000 requests in a file and the reference 50,000, so the
lower number is used. How long results are stored is not documented.
"""

from __future__ import annotations

from asyncio import sleep

from llm_magics.errors import ProviderError
from llm_magics.providers.batches import openai
from llm_magics.providers.batches.service import BatchLimits, Submission
from llm_magics.providers.openai_compatible import OpenAICompatibleProvider
from llm_magics.wire.openai_batches import item_path

# The states of a file that can be used, or never can; in any other state it is being processed.
_PROCESSED, _FAILED = "processed", frozenset({"error", "failed", "deleted"})

# The delays between requests for the state of a file, in seconds: 8 minutes in total.
_DELAYS_S = (1, 2, 4, 8, *[15] * 31)


class Batches(openai.Batches):
    """The batch API of Azure OpenAI."""

    limits = BatchLimits(requests=50_000, bytes=200_000_000)
    paths = frozenset({"/chat/completions", "/responses"})

    def __init__(self, provider: OpenAICompatibleProvider) -> None:
        super().__init__(provider)
        if getattr(provider.config, "api_version", None):
            # There the path of a live request contains the deployment.
            provider._cannot("run batch jobs with Azure's older API, which api_version selects")

    async def upload(self, submission: Submission) -> str:
        input_id = await super().upload(submission)
        for delay_s in (*_DELAYS_S, 0):
            said = await self._request("GET", item_path("files", input_id))
            with self.provider._reading():
                state = str(said.get("status") or _PROCESSED).lower()
            if state == _PROCESSED:
                return input_id
            if state in _FAILED:
                break
            await sleep(delay_s)
        msg = (
            f"{self.provider.name} did not process the uploaded file; its state is {state[:40]!r}."
        )
        hint = "Run the cell again."
        raise ProviderError(msg, hint=hint, provider=self.provider.name, body=said)
