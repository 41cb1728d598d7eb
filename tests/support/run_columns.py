"""The columns of ``lm.runs()``."""

from __future__ import annotations

COLUMNS = [
    "time",
    "provider",
    "model",
    "kind",
    "ttft_s",
    "itl_ms",
    "e2e_s",
    "load_s",
    "input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "tokens_per_s",
    "cost_usd",
    "reasoning_usd",
    "cached",
    "retries",
    "fallback_from",
    "finish_reason",
    "error",
    "cell",
]
