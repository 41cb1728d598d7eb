"""The keys of answers are the same in batch jobs and in live calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import llm_magics as lm
from llm_magics.runtime.answer_lookup import AnswerKeys
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.jobs.prompts import PromptWork
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.routing import find_route
from llm_magics.runtime.session import session

PARAMETERS: dict[str, Any] = {"max_tokens": 100, "extra_headers": {"x-team": "rows"}}
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


async def keys_of(prompts: list[Prompt]) -> tuple[list[bytes], list[bytes]]:
    """The keys of a job, and those of live calls."""
    route = await find_route(session, str(prompts[0].model))
    merged = ChatCall(session, prompts[0])._parameters(route)
    keys = await AnswerKeys.of(route, merged.extra_headers)
    work = PromptWork(session, prompts, route=route, keys=keys)
    work.look_up(range(len(prompts)))
    live = []
    for prompt in prompts:
        call = ChatCall(session, prompt)
        lookup = call._answer_lookup(route, call._parameters(route))
        assert lookup is not None
        await lookup.find_keys()
        live.append(lookup._key)
    return [work.key(number) for number in range(len(prompts))], live


@pytest.mark.parametrize(
    "provider",
    ["openai", "anthropic", "gemini", "mistral", "groq", "together", "openrouter", "azure"],
)
@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_keys_of_jobs_are_those_of_live_calls(provider: str, schema: Any) -> None:
    """For each service, with an alias, headers, a system message of the settings, and a schema."""
    lm.config.cache_dir = "cache"
    lm.config.system = "Be brief."
    own = {"api_key": "a-key"} | ({"base_url": "https://a.test"} if provider == "azure" else {})
    lm.config.providers = {provider: own}
    lm.config.aliases = {"mine": {"model": f"{provider}/some-model", "temperature": 0.0}}
    prompts = [
        Prompt(text=text, model="mine", parameters=PARAMETERS, schema=schema, is_kept=True)
        for text in ("a", "ä \ud800", " a", "{{ a }}")
    ]
    jobs, live = asyncio.run(keys_of(prompts))
    assert jobs == live
    assert len(set(jobs)) == len(prompts)
