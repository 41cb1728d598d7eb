"""
The probabilities of given answers, computed by llama.cpp without generating them.

The answers are tokenized and form a tree. At each branch, one token is sampled; a bias excludes
all tokens that do not continue an answer. The probability of an answer is the product over its
branches, which is the probability with which the model generates it if it must give one of them.
Answers that differ in their first token, as most words do, need one request, whatever their number.

Source (November 2026): ``/tokenize``, ``/apply-template`` and ``/completion`` in
https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md, and traffic of xllamacpp.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llm_magics._util.text import replace_lone_surrogates
from llm_magics.errors import ProviderError, UnsupportedError
from llm_magics.types import ChatMessage, EngineTimings, StreamChunk, TokenLogprob, Usage
from llm_magics.wire.decoders import DECODING_ERRORS
from llm_magics.wire.logprobs import IMPOSSIBLE
from llm_magics.wire.openai_chat import encode_messages

# Added to the logits of the tokens that continue an answer. The probabilities among these are
# unchanged, and those of all others become negligible.
_BIAS = 100.0

# Further digits depend on what was computed before, which the engine reuses.
_DIGITS = 4

# Sends a request to the server and returns its JSON object. Arguments: the path, and the body.
Post = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Branch:
    """
    A position at which answers differ.

    Attributes:
        prefix: the tokens before it.
        answers: the numbers of the answers that each possible token continues.
    """

    prefix: tuple[int, ...]
    answers: dict[int, list[int]]


def find_branches(sequences: Sequence[Sequence[int]]) -> list[Branch] | None:
    """
    Return the branches of the tree of token sequences, from the first position on.

    Return ``None`` if two sequences are equal, or one is the beginning of another.
    """
    branches: list[Branch] = []
    groups = [([*range(len(sequences))], 0)]
    for group, depth in groups:  # which grows
        if len(group) < 2:
            continue
        following: dict[int, list[int]] = {}
        for number in group:
            if len(sequences[number]) <= depth:
                return None
            following.setdefault(sequences[number][depth], []).append(number)
        if len(following) > 1:
            branches.append(Branch(tuple(sequences[group[0]][:depth]), following))
        groups += [(each, depth + 1) for each in following.values()]
    return branches


async def score_choices(
    post: Post, messages: Sequence[ChatMessage], choices: Sequence[str], model: str
) -> AsyncGenerator[StreamChunk, None]:
    """
    Yield the most probable of ``choices``, with the log probabilities of all of them.

    Each is scored as a JSON string: after a quotation mark, and up to and including the next one.
    Small models distinguish answers better in this form.

    Raises:
        UnsupportedError: two choices have the same tokens.
    """
    try:
        yield await _score(post, messages, choices, model)
    except DECODING_ERRORS as error:
        msg = f"local/{model} sent an invalid response: {type(error).__name__}: {error}"
        raise ProviderError(msg, provider="local", model=model) from error


async def _score(
    post: Post, messages: Sequence[ChatMessage], choices: Sequence[str], model: str
) -> StreamChunk:
    started = time.perf_counter()
    prompt = await _apply_template(post, messages)
    sequences = [await _tokenize(post, json.dumps(e, ensure_ascii=False)[1:]) for e in choices]
    branches = find_branches(sequences)
    if branches is None:
        msg = f"local/{model} cannot distinguish some of these answers: they have the same tokens."
        raise UnsupportedError(msg, hint="Use different words.", provider="local", model=model)
    logs = [0.0] * len(choices)
    read: int | None = None
    spent_ms = 0.0
    for branch in branches:
        reply = await post("/completion", _build_request(prompt, branch))
        for token, log in _parse_branch(reply, branch).items():
            for number in branch.answers[token]:
                logs[number] += log
        read = read or reply.get("tokens_evaluated")
        spent_ms += (reply.get("timings") or {}).get("prompt_ms") or 0.0
    known = [round(max(log, IMPOSSIBLE), _DIGITS) for log in logs]
    scored = [TokenLogprob(each, log) for each, log in zip(choices, known, strict=True)]
    scored.sort(key=lambda each: -each.logprob)
    return StreamChunk(
        scored[0].token,
        elapsed_s=time.perf_counter() - started,
        finish_reason="stop",
        usage=Usage(read, len(branches)),
        timings=EngineTimings(prompt_s=spent_ms / 1000),
        raw={"choices": {each.token: each.logprob for each in scored}},
        logprobs=(scored[0]._replace(top=tuple(scored)),),
    )


async def _apply_template(post: Post, messages: Sequence[ChatMessage]) -> str:
    """Return the prompt of a conversation, with the beginning of an answer as a JSON string."""
    body = {
        "messages": encode_messages(messages),
        "chat_template_kwargs": {"enable_thinking": False},
    }
    return str((await post("/apply-template", body))["prompt"]) + '"'


async def _tokenize(post: Post, text: str) -> list[int]:
    text = replace_lone_surrogates(text)
    reply = await post("/tokenize", {"content": text, "add_special": False})
    return [int(each) for each in reply["tokens"]]


def _build_request(prompt: str, branch: Branch) -> dict[str, Any]:
    return {
        "prompt": [prompt, *branch.prefix] if branch.prefix else prompt,
        "n_predict": 1,
        "n_probs": len(branch.answers),
        "post_sampling_probs": True,
        "logit_bias": [[token, _BIAS] for token in branch.answers],
        "samplers": ["temperature"],
        "temperature": 1.0,
        "cache_prompt": True,
        "stream": False,
    }


def _parse_branch(reply: dict[str, Any], branch: Branch) -> dict[int, float]:
    """Return the log probability of each token of a branch, among these."""
    (sampled,) = reply["completion_probabilities"]
    found = {each["id"]: float(each["prob"]) for each in sampled["top_probs"]}
    probabilities = {token: found.get(token, 0.0) for token in branch.answers}
    total = sum(probabilities.values())
    return {
        token: math.log(probability / total) if probability else IMPOSSIBLE
        for token, probability in probabilities.items()
    }
