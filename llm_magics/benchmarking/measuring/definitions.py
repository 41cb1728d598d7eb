"""
What is measured of one answer, each with its formula.

With *t* the times of the pieces since the request was sent (`Stamps`), *t_first* and *t_last*
those of the first and the last piece in which the model wrote something, *t_end* that of the very
last piece, and *n* the tokens streamed, thinking included:

| column | formula | the same as |
|---|---|---|
| ``ttft_s`` | t_first, thinking counts | guidellm's and aiperf's TTFT |
| ``ttft_answer_s`` | the first piece of the answer itself | guidellm's TTFOT, aiperf's TTFO |
| ``itl_ms`` | (t_last - t_first) / (n - 1) | guidellm's ITL; aiperf's, whose latency ends with the last content |
| ``tpot_ms`` | (t_end - t_first) / (n - 1) | vLLM's TPOT, where its first event has words |
| ``e2e_s`` | t_end | guidellm's request latency |
| ``tokens_per_s`` | (n - 1) / (t_last - t_first) | aiperf's tokens/s/user |
| ``headers_s`` | to the head of the answer: where a service answers one at a time, the wait for one's turn is in it | - |
| ``latency_s`` | queue_s + connect_s + e2e_s: from the moment at which it was meant to begin | wrk2's corrected latency |

ITL and TPOT go by tokens and not by pieces, of which one may hold several tokens. They, and
tokens/s, need two tokens that did not come at once. Thinking that a service counts but does not
stream is not in *n*: it was written before the first piece. Neither is thinking of which only a
summary is streamed; the summary counts for ``ttft_s`` and for nothing else. Where it is not said
how many tokens of thinking there were, these three are missing. A tool call begins with the first
piece of its name or arguments. The stream ends with its last event; what a
server still holds the connection open for is not in it. The clock starts when the request is handed to the socket: what a new
connection took stands in ``connect_s``, waiting before that in ``queue_s``. Loading a model
(``load_s``), where an engine tells of it, is taken out of all of them.

Sources: vLLM's ``benchmarks/serve.py``, guidellm's ``schemas/request_stats.py``, aiperf's
``metrics/types``; "coordinated omission" by Gil Tene's wrk2. `presets` gives the figures as each
of those tools would.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_magics.benchmarking.measuring.stamps import ANSWER, SUMMARY, TOOL, WRITTEN, Stamps


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of one answer, by the formulas above; ``None`` where there is nothing to measure."""

    ttft_s: float | None = None
    ttft_answer_s: float | None = None
    itl_ms: float | None = None
    tpot_ms: float | None = None
    e2e_s: float | None = None
    tokens_per_s: float | None = None


def latencies_of(
    stamps: Stamps, tokens: int | None, load_s: float = 0.0, hidden: int | None = 0
) -> Latencies:
    """
    What ``stamps`` and so many output ``tokens`` make; of a clock that went back, nothing.

    Args:
        load_s: seconds of loading that the engine tells of, within the first of the times.
        hidden: how many of the tokens were not streamed; ``None`` if some, and nobody knows.
    """
    if not stamps.times_s or not stamps.is_forward:
        return Latencies()
    written = stamps.of(WRITTEN)
    end = stamps.times_s[-1]
    if not written:
        return Latencies(e2e_s=end - load_s)
    streamed = stamps.of(WRITTEN - {SUMMARY}) if hidden else written
    first, last = (streamed[0], streamed[-1]) if streamed else (0.0, 0.0)
    answered = stamps.of((ANSWER, TOOL))
    steps = 0 if hidden is None else (tokens or 0) - hidden - 1
    took = last - first
    return Latencies(
        ttft_s=written[0] - load_s,
        ttft_answer_s=answered[0] - load_s if answered else None,
        itl_ms=took / steps * 1000 if steps > 0 and took > 0 else None,
        tpot_ms=(end - first) / steps * 1000 if steps > 0 and took > 0 else None,
        e2e_s=end - load_s,
        tokens_per_s=steps / took if steps > 0 and took > 0 else None,
    )
