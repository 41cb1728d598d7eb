"""What each column of a table means, for the reference page of columns."""

from __future__ import annotations

_IDENTITY = {
    "provider": "The provider that answered.",
    "model": "The model's name, without its provider.",
}
_CALL = {
    "ttft_s": "Time to first token: seconds from sending the request to the first token. Thinking counts.",
    "itl_ms": "Inter-token latency: mean milliseconds between two tokens.",
    "e2e_s": "End-to-end time: seconds from sending the request to the end of the answer.",
    "load_s": "Seconds spent loading the model into memory. Not part of the other times.",
    "input_tokens": "Tokens read by the model.",
    "output_tokens": "Tokens written by the model.",
    "tokens_per_s": "Output tokens per second.",
    "cost_usd": "Price in US dollars; missing if unknown.",
    "cached": "Whether the answer was stored earlier (cache or recording).",
    "retries": "How often the request was repeated.",
    "fallback_from": "The models of a route that failed before this one, each with its error.",
    "finish_reason": "Why the answer ended: `stop`, `length`, `interrupted`, `error` …",
    "error": "The error, if the call failed.",
}
RUNS = {
    "time": "When the call was made (UTC).",
    **_IDENTITY,
    "kind": "`chat`, `embedding`, `image`, `transcription`, or `batch` for the results of batch jobs.",
    **_CALL,
    "reasoning_tokens": "Output tokens used for thinking; missing if the service does not report them.",
    "reasoning_usd": "The part of `cost_usd` that is for thinking; missing if unknown.",
    "cell": "The number of the cell run that made the call.",
}
HISTORY = {
    "id": "The identifier of the call, for `lm.response` and `lm.rerun`.",
    **{name: meaning for name, meaning in RUNS.items() if name not in ("model", "cell")},
    "model": "The model, as `provider/name`.",
    "notebook": "The notebook or script that made the call, if the frontend tells its path.",
    "cell": RUNS["cell"],
    "cell_id": "The identifier of the cell, in all of its runs.",
    "session": "The identifier of the kernel or process.",
    "request_id": "The identifier of the request that the service has sent; without one, that of the answer.",
    "template": "The prompt file.",
    "template_digest": "The digest of the prompt file, which changes with its content.",
    "parameters": "The parameters of the request, as JSON.",
    "prompt": "The text of the last message.",
    "answer": "The text of the answer.",
}
JOBS = {
    "id": "The job's identifier, for `%llm jobs cancel ID` and `forget ID`.",
    "service": "The provider.",
    "model": "The model's name, without its provider.",
    "kind": "`chat` or `embedding`.",
    "rows": "The requests of the job.",
    "done": "Those that the service has processed, also the failed ones.",
    "failed": "Those that failed.",
    "cost_usd": "Price in US dollars of the results that were read; missing if unknown.",
    "submitted": "When the job was submitted (UTC).",
    "expires": "Until when the service tries (UTC).",
    "state": "`prepared`, `creating`, `uncertain`, `running`, `ended` or `dropped`.",
    "note": "Why the state is what it is, or why it could not be refreshed.",
    "service_id": "The service's identifier of the job.",
}
MODELS = {
    "provider": "The provider that lists the model.",
    "model": "The full name, `provider/name`.",
    "capabilities": "What the model supports: chat, completion, embeddings, vision, tools …",
    "context": "The longest prompt plus answer, in tokens.",
    "size_mb": "Size on disk in megabytes.",
    "input_usd": "US dollars for a million input tokens.",
    "output_usd": "US dollars for a million output tokens.",
    "pulled": "Whether the weights are on the machine that runs the model.",
    "loaded": "Whether the model is in memory.",
}
MEASUREMENTS = {
    "run": "An identifier of the run in which the row was measured.",
    "repeat": "How often this prompt was sent before, starting at 0.",
    "round": "The round of the run, starting at 0. Models take turns in each round.",
    "concurrency": "Requests in flight at the same time. Missing with `rate`.",
    "rate": "Requests started per second. Only with `rate`.",
    "asked": "The model, as you named it.",
    "prompt": "The prompt.",
    "expected": "The expected answer. Only with `expected`.",
    **_IDENTITY,
    "text": "The answer.",
    "score_exact": "The score, between 0 and 1. One column per score, named `score_…`.",
    **_CALL,
    "ttft_answer_s": "Seconds to the first token of the answer itself, after any thinking.",
    "tpot_ms": "Time per output token: as `itl_ms`, but up to the end of the stream.",
    "cached_tokens": "Input tokens that the service had in its own prompt cache.",
    "reasoning_tokens": "Output tokens used for thinking.",
    "reasoning_usd": "The part of `cost_usd` that is for thinking; missing if unknown.",
    "tokens_from": "Who counted the tokens: the `service`, a `tokenizer`, or `pieces` of the stream.",
    "note": "Why a row has no times, or why they cannot be compared with others.",
    "queue_s": "Seconds the request waited on this side before it was sent.",
    "connect_s": "Seconds spent opening a new connection; 0 if one was open.",
    "headers_s": "Seconds from sending the request to the response headers.",
    "latency_s": "`queue_s` + `connect_s` + `e2e_s`: seconds since the request was scheduled to start.",
    "intended_s": "When the request was scheduled, in seconds since the start of the run.",
    "sent_s": "When the request was sent, in seconds since the start of the run.",
    "ended_s": "When the answer ended, in seconds since the start of the run.",
    "bytes_sent": "Size of the request bodies.",
    "bytes_received": "Size of the response bodies, decompressed.",
    "pieces": "Number of pieces in the stream.",
    "client_cpu": "CPU use of this process, as a share of one core. Near 1, the client limits the result.",
    "times_s": "The time of each piece, in seconds since the request was sent.",
    "kinds": "The kind of each piece, one letter each: `a` answer, `r` thinking, `s` summary of thinking, "
    "`t` tool call, `u` token count, `e` empty.",
}
SUMMARY = {
    "model": "The model, as you named it (the index).",
    "requests": "Number of requests.",
    "failed": "Requests that failed. They score 0 and have no times.",
    "cached": "Requests answered from the cache or a recording. They have no times.",
    "score_exact": "Mean score.",
    **{name: _CALL[name] for name in ("ttft_s", "itl_ms", "e2e_s", "tokens_per_s")},
    **{name: MEASUREMENTS[name] for name in ("ttft_answer_s", "tpot_ms", "latency_s", "queue_s")},
    "requests_per_s": "Completed requests per second, all together.",
    "throughput_tokens_per_s": "Output tokens per second, all requests together.",
    "output_tokens": "Mean output tokens per answer.",
    "retries": "Repeated requests in total.",
    "cost_usd": "Price of all requests in US dollars.",
    "client_cpu": "The highest CPU use of this process. Near 1, the client limits the result.",
}
DIFFERENCES = {
    "model": "One model of the pair.",
    "other": "The other model of the pair.",
    "measured": "The score or time that is compared.",
    "n": "Number of pairs: prompts in common, or requests in common for times.",
    "mean": "Mean of `model`.",
    "mean_other": "Mean of `other`.",
    "difference": "`mean_other` minus `mean`.",
    "low": "Lower end of the confidence interval of the difference (paired bootstrap).",
    "high": "Upper end of that interval.",
    "test": "The statistical test: McNemar for scores of 0 and 1, otherwise Wilcoxon.",
    "p": "The p-value of the test.",
    "n_needed": "Prompts needed to detect the difference with a power of 80 %.",
    "p_corrected": "The p-value corrected for the number of pairs (Holm).",
    "verdict": "The conclusion in words.",
}
COST = {
    "provider": "The provider (index).",
    "model": "The model (index).",
    "calls": "Number of calls.",
    "input_tokens": "Tokens read.",
    "output_tokens": "Tokens written.",
    "reasoning_tokens": "Tokens written as thinking, where services report them.",
    "cost_usd": "US dollars spent on calls with a known price.",
    "reasoning_usd": "The part of `cost_usd` that is for thinking.",
    "unpriced": "Calls with an unknown price. They are missing from `cost_usd`.",
}
PROVIDERS = {
    "provider": "The provider's name.",
    "set_up": "Whether it can be used: a key is set, or it needs none.",
    "key": "The environment variable of its key.",
    "start": "The command that starts or installs it.",
    "capabilities": "What it supports.",
}
HEALTH = {
    "provider": "The provider's name.",
    "status": "`ok` or `unavailable`.",
    "detail": "The reason, or details such as the server's version.",
}
THREADS = {
    "thread": "The name of the conversation.",
    "turn": "The number of the turn.",
    "role": "`user` or `assistant`.",
    "content": "The text of the message.",
    "model": "The model that answered.",
    "whole": "Whether the answer is complete.",
}
CONFIG = {
    "key": "The setting (index).",
    "value": "Its value.",
    "source": "Where the value comes from.",
    "description": "What the setting does.",
}

# Headings, the tables of the public surface, and the meanings of their columns.
SECTIONS: list[tuple[str, str, list[str], dict[str, str]]] = [
    (
        "Calls",
        "`lm.runs()` and `%llm runs` have one row per call of this session.",
        ["lm.runs"],
        RUNS,
    ),
    (
        "History",
        "`lm.history()` and `%llm history` have one row per call of all sessions.",
        ["lm.history"],
        HISTORY,
    ),
    ("Jobs", "`lm.jobs()` and `%llm jobs` have one row per batch job.", ["lm.jobs"], JOBS),
    ("Models", "`lm.models()` and `%llm models` have one row per model.", ["lm.models"], MODELS),
    (
        "Measurements",
        (
            "`lm.bench` and `lm.compare` return one row per request. Some columns exist in one of the "
            "two only. `lm.evaluate` adds `item` (the id of the item) and `cluster` to those of "
            "`lm.compare`, and leaves out the details of connections. See [how the times are measured](../explanation/metrics.md)."
        ),
        ["lm.bench", "lm.compare"],
        MEASUREMENTS,
    ),
    (
        "Summary",
        (
            "`runs.summary()` has one row per model, and per load if there are several. Times and speeds "
            "are medians. Columns with these endings belong to the column before them: `_low` and `_high` "
            "(95 % confidence interval), `_p90` and `_p99` (percentiles of times), `_p10` and `_p1` "
            "(percentiles of speeds)."
        ),
        ["lm.bench.summary", "lm.compare.summary"],
        SUMMARY,
    ),
    (
        "Differences",
        "`runs.differences()` has one row per pair of models.",
        ["lm.bench.differences"],
        DIFFERENCES,
    ),
    ("Cost", "`%llm cost` has one row per model of this session.", ["%llm cost"], COST),
    ("Providers", "`%llm providers` has one row per provider.", ["%llm providers"], PROVIDERS),
    ("Health", "`%llm health` has one row per provider.", ["%llm health"], HEALTH),
    ("Threads", "`%llm threads` has one row per message.", ["%llm threads"], THREADS),
    ("Settings", "`%llm config` has one row per setting.", ["%llm config"], CONFIG),
]
