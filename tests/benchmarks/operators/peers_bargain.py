"""
Oracle calls, precision and recall of BARGAIN on fixed scores.

    python tests/benchmarks/operators/peers_bargain.py tables.npz results.json \
        --method A --target 0.9 --delta 0.05 --budget 400

It runs in an environment of its own, with ``bargain`` 0.1.3 and NumPy only. ``tables.npz`` has two
arrays, ``scores`` and ``labels``, with a row for each trial. The methods: A (accuracy), P
(precision), R (recall) and PR (both). The oracle and the proxy answer from arrays, and the betting
test is computed with NumPy's cumulative sums; its decisions are BARGAIN's own (``--check``).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from BARGAIN import BARGAIN_A, BARGAIN_P, BARGAIN_PR, BARGAIN_R, Oracle, Proxy
from BARGAIN.bounds import betting_bounds

BUDGETED = {"P": BARGAIN_P, "R": BARGAIN_R}
CERTIFYING = {"A": BARGAIN_A, "PR": BARGAIN_PR}


class ArrayOracle(Oracle):  # type: ignore[misc]
    """Labels from an array; counts the distinct rows asked."""

    def __init__(self, labels: Any) -> None:
        super().__init__(verbose=False)
        self.labels = labels
        self.asked = np.zeros(len(labels), bool)

    def reset(self) -> None:
        """Forget the rows asked."""
        self.asked[:] = False

    def get_number_preds(self) -> int:
        """Return the number of distinct rows asked."""
        return int(self.asked.sum())

    def get_pred(self, data_records: Any, indxs: Any = None) -> Any:
        """Return the labels of rows."""
        rows = np.asarray(indxs, int)
        self.asked[rows] = True
        return self.labels[rows]

    def is_answer_correct(self, data_indxs: Any, data_records: Any, proxy_outputs: Any) -> Any:
        """Return whether the proxy's labels are the oracle's."""
        return self.get_pred(data_records, data_indxs) == np.asarray(proxy_outputs)


class ArrayProxy(Proxy):  # type: ignore[misc]
    """The more probable label and its probability, from an array of calibrated scores."""

    def __init__(self, scores: Any) -> None:
        super().__init__(verbose=False)
        self.scores = scores

    def get_preds_and_scores(self, indxs: Any, data_records: Any) -> Any:
        """Return the labels and their probabilities."""
        scores = self.scores[np.asarray(indxs, int)]
        labels = (scores >= 0.5).astype(np.int8)
        return labels, np.where(labels == 1, scores, 1 - scores)


def bets(obs: Any, alpha: float, fixed: bool) -> Any:
    """Return BARGAIN's untruncated bet before each observation."""
    earlier = np.arange(len(obs))  # Observations before each one.
    total = np.append(0.0, np.cumsum(obs)[:-1])
    squares = np.append(0.0, np.cumsum(obs**2)[:-1])
    mean = (0.5 + total) / (earlier + 1)
    variance = (0.25 + squares - 2 * mean * total + earlier * mean**2) / (earlier + 1)
    i = earlier + 1
    return np.sqrt(2 * np.log(2 / alpha) / ((len(obs) if fixed else i * np.log(i + 1)) * variance))


def remaining_means(
    obs: Any, m: float, without_replacement: bool, size: int, lag: int = 0
) -> Any:  # fmt: skip
    """Return the mean of what remains before each observation if the mean of all is ``m``."""
    if not without_replacement:
        return np.full(len(obs), m)
    before = np.append(0.0, np.cumsum(obs)[:-1])
    return (size * m - before) / (size - np.maximum(np.arange(len(obs)) - lag, 0))


def not_above(
    obs: Any, m: float, alpha: float, fixed_sample_size: bool = True,
    without_replacement: bool = False, N: int = 0,  # noqa: N803 (BARGAIN's name)
) -> bool:  # fmt: skip
    """Return whether a mean of at most ``m`` is not rejected."""
    obs = np.asarray(obs, float)
    means = remaining_means(obs, m, without_replacement, N)
    bet = np.minimum(bets(obs, alpha, fixed_sample_size), 0.75 / means)
    return not np.any(np.cumprod(1 + bet * (obs - means)) >= 1 / alpha)


def not_below(
    obs: Any, m: float, alpha: float, fixed_sample_size: bool = True,
    without_replacement: bool = False, N: int = 0,  # noqa: N803 (BARGAIN's name)
) -> bool:  # fmt: skip
    """Return whether a mean of at least ``m`` is not rejected."""
    obs = np.asarray(obs, float)
    means = remaining_means(obs, m, without_replacement, N, lag=1)  # As bargain 0.1.3 counts.
    bet = np.minimum(bets(obs, alpha, fixed_sample_size), 0.75 / (1 - means[-1]))
    return not np.any(np.cumprod(1 - bet * (obs - means)) >= 1 / alpha)


FAST = {"test_if_true_mean_is_above_m": not_above, "test_if_true_mean_is_below_m": not_below}


def use_fast_tests() -> None:
    """Replace the betting tests, which take quadratic time, by those with cumulative sums."""
    for method in (*CERTIFYING, *BUDGETED):
        module = sys.modules[f"BARGAIN.process.BARGAIN_{method}"]
        for name, fast in FAST.items():
            assert hasattr(module, name)
            setattr(module, name, fast)


def check_fast_tests(trials: int = 3_000) -> None:
    """Compare the decisions of the fast tests with the original ones."""
    rng = np.random.default_rng(0)
    decided = 0
    for _ in range(trials):
        size, rate = int(rng.integers(2, 400)), rng.random()
        obs = (rng.random(int(rng.integers(1, size))) < rate).astype(float)
        m = float(np.clip(rate + rng.normal(0, 0.2), 0.01, 0.99))
        alpha = float(rng.choice([0.05, 0.1, 0.025]))
        sizes = {"without_replacement": bool(rng.integers(2)), "N": size}
        options: dict[str, Any] = {"fixed_sample_size": bool(rng.integers(2)), **sizes}
        for name, fast in FAST.items():
            with np.errstate(all="ignore"):
                theirs = getattr(betting_bounds, name)(obs, m, alpha, **options)
                ours = fast(obs, m, alpha, **options)
            assert theirs == ours, (name, obs, m, alpha, options)
            decided += not theirs
    print(f"{2 * trials} tests agree; {decided} of them reject")


def trial(
    scores: Any, labels: Any, *, method: str, target: float, delta: float, budget: int, seed: int
) -> dict[str, Any]:
    """Run a method on a table and return its calls and the quality of its decisions."""
    oracle, proxy = ArrayOracle(labels), ArrayProxy(scores)
    common = {"proxy": proxy, "oracle": oracle, "target": target, "delta": delta, "seed": seed}
    rows = np.arange(len(labels))
    if method in BUDGETED:
        result = BUDGETED[method](budget=budget, **common).process(rows)
    else:
        result = CERTIFYING[method](verbose=False, **common).process(rows)
    decided = np.zeros(len(labels), bool)
    if method == "A":
        decided[:] = np.asarray(result, bool)
    else:
        decided[np.asarray(result, int)] = True
    right = int((decided & (labels == 1)).sum())
    chosen, positives = int(decided.sum()), int((labels == 1).sum())
    return {
        "calls": oracle.get_number_preds(),
        "accuracy": float((decided == (labels == 1)).mean()),
        "precision": right / chosen if chosen else 1.0,
        "recall": right / positives if positives else 1.0,
        "kept": chosen,
    }


def main() -> None:
    """Run the trials of a file of tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path, nargs="?")
    parser.add_argument("results", type=Path, nargs="?")
    parser.add_argument("--method", choices=[*CERTIFYING, *BUDGETED], default="A")
    parser.add_argument("--target", type=float, default=0.9)
    parser.add_argument("--delta", type=float, default=0.05)
    parser.add_argument("--budget", type=int, default=400)
    parser.add_argument("--check", action="store_true", help="compare the betting tests and stop")
    args = parser.parse_args()
    if args.check:
        check_fast_tests()
        return
    use_fast_tests()
    options = {"method": args.method, "target": args.target, "delta": args.delta}
    with np.load(args.tables) as tables, np.errstate(all="ignore"):
        pairs = enumerate(zip(tables["scores"], tables["labels"], strict=True))
        trials = [trial(s, y, seed=t, budget=args.budget, **options) for t, (s, y) in pairs]
    results = json.dumps({**options, "budget": args.budget, "trials": trials})
    args.results.write_text(results, encoding="utf-8")


if __name__ == "__main__":
    main()
