"""A call as the log has it, for tests of what stores calls."""

from __future__ import annotations

from datetime import datetime

from llm_magics.runtime.storage.run_log import Run


def run_at(moment: datetime) -> Run:
    """A call at a time."""
    return Run(
        time=moment,
        provider="lab",
        model="big",
        kind="chat",
        ttft_s=0.1,
        itl_ms=5.0,
        e2e_s=1.0,
        load_s=0.0,
        input_tokens=10,
        output_tokens=20,
        tokens_per_s=30.0,
        cost_usd=0.001,
        cached=False,
        retries=0,
        fallback_from=None,
        finish_reason="stop",
        error=None,
    )
