"""
What vLLM, guidellm and aiperf make of stamps, by their own code.

Run with the tools at hand, it writes ``figures_of_peers.json`` anew:

    python -m tests.support.peers_figures guidellm aiperf path/to/vllm-0.33.0

Each tool is asked in the Python it is installed in; of vLLM the source is enough (its package
needs CUDA), of which the one function that counts is taken.
"""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("figures_of_peers.json")

# As `llm_magics.benchmarking.latencies` has them: the letters of pieces.
WRITTEN, ANSWER, COUNT = set("art"), set("at"), "u"
NS = 1_000_000_000


@dataclass
class Request:
    """Stamps of an answer and its tokens."""

    times_s: list[float]
    kinds: str
    tokens: int
    of: dict[str, Any] = field(default_factory=dict)

    def at(self, kinds: set[str]) -> list[float]:
        """The times of pieces of some kinds."""
        return [at for at, kind in zip(self.times_s, self.kinds, strict=True) if kind in kinds]


def guidellm(requests: list[Request]) -> list[dict[str, float | None]]:
    """By its `GenerativeRequestStats`, as its HTTP backend fills it."""
    from guidellm.schemas import GenerativeRequestStats, RequestInfo, RequestTimings, UsageMetrics

    told = []
    for n, each in enumerate(requests):
        written, answered = each.at(WRITTEN), each.at(ANSWER)
        start = 1_795_646_032.0
        timings = RequestTimings(
            request_start=start,
            first_token_iteration=start + written[0] if written else None,
            first_output_token_iteration=start + answered[0] if answered else None,
            last_token_iteration=start + written[-1] if written else None,
            token_iterations=len(written),
            request_end=start + each.times_s[-1],
            resolve_end=start + each.times_s[-1],
        )
        info = RequestInfo(request_id=str(n), timings=timings)
        stats = GenerativeRequestStats(
            request_id=str(n),
            info=info,
            input_metrics=UsageMetrics(),
            output_metrics=UsageMetrics(text_tokens=each.tokens),
        )
        told.append(
            {
                "time_to_first_token_ms": stats.time_to_first_token_ms,
                "time_to_first_output_token_ms": stats.time_to_first_output_token_ms,
                "inter_token_latency_ms": stats.inter_token_latency_ms,
                "time_per_output_token_ms": stats.time_per_output_token_ms,
                "request_latency": stats.request_latency,
            }
        )
    return told


def aiperf(requests: list[Request]) -> list[dict[str, float | None]]:
    """By its record metrics, in milliseconds."""
    from aiperf.common.exceptions import NoMetricValue
    from aiperf.common.models.record_models import (
        ParsedResponse,
        ParsedResponseRecord,
        ReasoningResponseData,
        RequestRecord,
        TextResponseData,
        TokenCounts,
    )
    from aiperf.metrics.metric_dicts import MetricRecordDict
    from aiperf.metrics.types.inter_token_latency_metric import InterTokenLatencyMetric
    from aiperf.metrics.types.output_sequence_length_metric import OutputSequenceLengthMetric
    from aiperf.metrics.types.request_latency_metric import RequestLatencyMetric
    from aiperf.metrics.types.time_to_first_output_token_metric import TimeToFirstOutputTokenMetric
    from aiperf.metrics.types.ttft_metric import TTFTMetric

    metrics = [
        OutputSequenceLengthMetric(),
        TTFTMetric(),
        TimeToFirstOutputTokenMetric(),
        RequestLatencyMetric(),
        InterTokenLatencyMetric(),
    ]
    told = []
    for each in requests:
        responses = []
        for at, kind in zip(each.times_s, each.kinds, strict=True):
            data = None
            if kind in ANSWER:
                data = TextResponseData(text="x")
            elif kind in WRITTEN:
                data = ReasoningResponseData(reasoning="x")
            responses.append(ParsedResponse(perf_ns=NS + round(at * NS), data=data))
        record = ParsedResponseRecord(
            RequestRecord(start_perf_ns=NS), responses, TokenCounts(output=each.tokens)
        )
        values = MetricRecordDict()
        for metric in metrics:
            try:
                values[metric.tag] = metric._parse_record(record, values)
            except NoMetricValue:
                continue
        del values[OutputSequenceLengthMetric.tag]
        told.append({str(tag): float(value) / 1e6 for tag, value in values.items()})
    return told


def vllm(requests: list[Request], source: Path) -> list[dict[str, Any]]:
    """By its ``calculate_metrics``, and its loop over the events of an answer."""
    calculate, output = _vllm_code(source)
    told = []
    for each in requests:
        out = output()
        latest = 0.0
        for at, kind in zip(each.times_s, each.kinds, strict=True):
            if kind == COUNT:  # an event without a choice: it only tells the usage
                continue
            if not out.success:
                out.success, out.ttft = True, at
            else:
                out.itl.append(at - latest)
            latest = at
        out.latency, out.output_tokens = latest, each.tokens
        metrics, _ = calculate([], [out], 1.0, None, [50.0, 99.0], {})
        told.append(
            {
                name: float(getattr(metrics, name))
                for name in ("mean_ttft_ms", "mean_tpot_ms", "mean_itl_ms", "median_itl_ms", "mean_e2el_ms")
            }
        )  # fmt: skip
    return told


def _vllm_code(source: Path) -> tuple[Any, Any]:
    """The function, and the class of what it is given, out of vLLM's files."""
    space: dict[str, Any] = {"np": np, "dataclass": dataclass, "field": field, "Any": Any}
    space |= {"warnings": __import__("warnings"), "TERM_PLOTLIB_AVAILABLE": False, "print": lambda *_: None}  # fmt: skip
    space["MILLISECONDS_TO_SECONDS_CONVERSION"] = 1000
    wanted = {
        "vllm/benchmarks/lib/endpoint_request_func.py": {"RequestFuncOutput"},
        "vllm/benchmarks/serve.py": {"BenchmarkMetrics", "calculate_metrics"},
    }
    for file, names in wanted.items():
        tree = ast.parse((source / file).read_text("utf-8"))
        kept = [node for node in tree.body if getattr(node, "name", None) in names]
        future = ast.parse("from __future__ import annotations").body
        exec(compile(ast.Module([*future, *kept], []), file, "exec"), space)
    return space["calculate_metrics"], space["RequestFuncOutput"]


def main(tools: list[str]) -> None:
    """Fill the file in for the tools that are named; or print what one says, after ``--print``."""
    told = json.loads(FILE.read_text("utf-8"))
    requests = [Request(**each) for each in told["requests"]]
    if tools[0] == "--print":
        sys.stdout.write(json.dumps(globals()[tools[1]](requests)) + "\n")
        return
    for tool in tools:
        if tool in ("guidellm", "aiperf"):
            told[tool] = {"version": version(tool), "figures": globals()[tool](requests)}
        else:
            path = Path(tool)
            name = path.resolve().name.partition("-")[2]
            told["vllm"] = {"version": name, "figures": vllm(requests, path)}
    FILE.write_text(json.dumps(told, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
