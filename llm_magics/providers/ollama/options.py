"""The options of an Ollama runner, checked here because the server takes any name in silence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llm_magics.errors import UsageError, nearest

# api/types.go, Options and Runner.
_OPTIONS = frozenset(
    [
        "num_keep",
        "seed",
        "num_predict",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "repeat_last_n",
        "temperature",
        "repeat_penalty",
        "presence_penalty",
        "frequency_penalty",
        "stop",
        "num_ctx",
        "num_batch",
        "num_gpu",
        "main_gpu",
        "use_mmap",
        "num_thread",
        "draft_num_predict",
        "numa",
        "low_vram",
        "use_mlock",
        "vocab_only",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
        "penalize_newline",
        "tfs_z",
        "logits_all",
        "embedding_only",
        "f16_kv",
    ]
)


def with_options(body: dict[str, Any]) -> dict[str, Any]:
    """
    Return ``body`` with the runner's options where the server reads them.

    It ignores them beside ``model``, where a parameter such as ``num_ctx`` would arrive.

    Raises:
        UsageError: ``truncate`` or ``shift`` is neither true nor false.
    """
    for name in ("truncate", "shift"):
        if not isinstance(body.get(name, False), bool):
            msg = f"{name} cannot be {body[name]!r}."
            raise UsageError(msg, hint="Give it true or false.")
    beside = {name: body[name] for name in body if name in _OPTIONS}
    if not beside:
        return body
    rest = {name: value for name, value in body.items() if name not in beside}
    return {**rest, "options": {**beside, **body.get("options", {})}}


def check(names: Iterable[str]) -> None:
    """Refuse an option that there is not: a slip would go unnoticed."""
    for name in names:
        if name not in _OPTIONS:
            msg = f'Ollama has no option "{name}".'
            raise UsageError(msg, hint=nearest(name, _OPTIONS))
