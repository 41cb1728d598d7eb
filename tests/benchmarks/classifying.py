"""
How well and how fast ``local`` classifies by scoring labels, against generating them.

    python -m tests.benchmarks.classifying speed
    python -m tests.benchmarks.classifying quality SDIST [PICTURE]

``SDIST`` is the source distribution of vaderSentiment 3.3.2 (``pip download --no-deps --no-binary
:all: vaderSentiment==3.3.2``), whose sentences were rated by 20 people each. Sentences of the
notebooks' reviews, with which the method was chosen, are left out. With ``PICTURE``, the
reliability diagram of the documentation is written there. The results are printed as JSON.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import llm_magics as lm
from llm_magics.dataframes.classify import classification_prompts
from llm_magics.dataframes.prompting import run_prompts, single_column
from tests.benchmarks.rounds import Bound

MODEL = "local/smollm2-135m"
LABELS = ["positive", "negative"]
# The tokens of each of these differ from the others' in the first one.
TEN = ["positive", "negative", "neutral", "angry", "happy", "sad", "funny", "formal", "short", "long"]  # fmt: skip
REVIEWS = Path(__file__).parents[2] / "notebooks" / "data" / "reviews.csv"
COUNT, CLEAR = 1200, 1.0

# At most so many reviews are timed, so many at once.
TIMED, PART = 72, 12
FASTER = Bound("generated", "scored", 1, is_minimum=True)

_INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
_SENTENCES = "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"


def read_sentences(sdist: Path) -> pd.DataFrame:
    """Return the rated sentences of Amazon reviews in the source distribution."""
    with tarfile.open(sdist) as outer:
        name = next(each for each in outer.getnames() if each.endswith(_INNER))
        packed = outer.extractfile(name)
        assert packed is not None
        with tarfile.open(fileobj=io.BytesIO(packed.read())) as inner:
            file = inner.extractfile(_SENTENCES)
            assert file is not None
            lines = file.read().decode("utf-8", "replace").splitlines()
    rows = [line.split("\t", 2) for line in lines if line.count("\t") >= 2]
    frame = pd.DataFrame(rows, columns=["id", "rating", "text"]).astype({"rating": float})
    frame["text"] = frame["text"].str.strip()
    return frame[frame["text"].str.len() > 0].drop_duplicates("text")


def other_sentences(sdist: Path) -> pd.DataFrame:
    """Return sentences with a rating that are not among the notebooks' reviews."""
    frame = read_sentences(sdist)
    known = set(pd.read_csv(REVIEWS)["text"].str.strip())
    rest = frame[~frame["text"].isin(known) & (frame["rating"] != 0)]
    return rest.sample(COUNT, random_state=0).reset_index(drop=True)


def balanced_accuracy(is_negative: Any, said_negative: Any) -> float:
    """Return the mean of the shares of correct answers of both classes."""
    truth, said = np.asarray(is_negative), np.asarray(said_negative)
    return float((said[truth].mean() + (~said[~truth]).mean()) / 2)


def interval(is_negative: Any, said_negative: Any) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the balanced accuracy."""
    truth, said = np.asarray(is_negative), np.asarray(said_negative)
    draws = np.random.default_rng(0).integers(0, len(truth), (2000, len(truth)))
    values = [balanced_accuracy(truth[draw], said[draw]) for draw in draws]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def calibration_error(confidence: Any, is_right: Any, bins: int = 10) -> float:
    """Return the expected calibration error over bins of equal width."""
    which = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    parts = [which == each for each in np.unique(which)]
    right, sure = np.asarray(is_right, float), np.asarray(confidence, float)
    return float(sum(part.mean() * abs(right[part].mean() - sure[part].mean()) for part in parts))


def quality(sdist: Path, picture: Path | None) -> dict[str, Any]:
    """Return the balanced accuracy on other sentences, and how reliable the confidence is."""
    frame = other_sentences(sdist)
    found = lm.classify(frame["text"], LABELS, confidence=True, model=MODEL)
    said = (found["label"] == "negative").to_numpy()
    negative = (frame["rating"] < 0).to_numpy()
    is_clear = (frame["rating"].abs() >= CLEAR).to_numpy()
    sure = found["label_confidence"].to_numpy(float)
    if picture is not None:
        draw_reliability(sure, said == negative, picture)
    return {
        "count": len(frame),
        "accuracy": balanced_accuracy(negative, said),
        "interval": interval(negative, said),
        "clear_count": int(is_clear.sum()),
        "clear_accuracy": balanced_accuracy(negative[is_clear], said[is_clear]),
        "clear_interval": interval(negative[is_clear], said[is_clear]),
        "calibration_error": calibration_error(sure, said == negative),
        "sure_half": float((said == negative)[sure >= np.median(sure)].mean()),
        "unsure_half": float((said == negative)[sure < np.median(sure)].mean()),
    }


def draw_reliability(confidence: Any, is_right: Any, path: Path) -> None:
    """Write the reliability diagram: how often labels of each confidence are right."""
    from matplotlib.figure import Figure

    edges = np.linspace(0.5, 1, 11)
    which = np.clip(np.digitize(confidence, edges) - 1, 0, len(edges) - 2)
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0.5, 1], [0.5, 1], color="grey", linewidth=0.8, linestyle="--")
    for number in np.unique(which):
        part = which == number
        share, count = float(np.mean(is_right[part])), int(part.sum())
        error = 1.96 * np.sqrt(max(share * (1 - share), 0.25 / count) / count)
        mean = float(confidence[part].mean())
        axes.errorbar(mean, share, yerr=error, fmt="o", color="#0072b2", capsize=2)
        axes.annotate(str(count), (mean, share), (5, -9), textcoords="offset points", fontsize=7)
    axes.set(xlabel="label_confidence", ylabel="share of correct labels", ylim=(0.3, 1.02))
    axes.set_title(f"{len(confidence):,} sentences, {MODEL}", fontsize=10)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def generated(texts: Any, labels: list[str]) -> Any:
    """Return the labels that the model generates."""
    spec = classification_prompts(labels, "label", {"model": MODEL, "fresh": True})
    return run_prompts(
        texts.to_frame("text"), replace(spec, choices=(), neutral=()), single_column
    )


def scored(texts: Any, labels: list[str]) -> Any:
    """Return the labels that scoring finds."""
    return lm.classify(texts, labels, model=MODEL, fresh=True)


def speed() -> dict[str, float]:
    """
    Return the seconds per row of scoring and of generating two and ten labels, and the accuracy.

    The rows that were labelled with two labels while the time was taken count for the accuracy.
    """
    frame = pd.read_csv(REVIEWS)
    reviews = frame["text"]
    lm.classify(reviews.head(2), LABELS, model=MODEL)  # the engine is started
    result: dict[str, float] = {}
    negative = (frame["rating"] < 0).to_numpy()
    for name, labels in (("two", LABELS), ("ten", TEN)):
        seconds: dict[str, list[float]] = {"scored": [], "generated": []}
        said: dict[str, list[Any]] = {"scored": [], "generated": []}
        for start in range(0, TIMED, PART):  # in turns
            part = reviews[start : start + PART]
            for how, label in (("scored", scored), ("generated", generated)):
                started = time.perf_counter()
                said[how].append(label(part, labels))
                seconds[how].append((time.perf_counter() - started) / len(part))
            if FASTER.is_clear(seconds):
                break
        result |= {f"{name}_{how}": min(each) for how, each in seconds.items()}
        if labels is not LABELS:
            continue
        rest = reviews[PART * len(said["scored"]) :]
        for how, label in (("scored", scored), ("generated", generated)):
            every = np.concatenate([*said[how], label(rest, labels)])
            result[f"reviews_{how}"] = balanced_accuracy(negative, every == "negative")
    return result


def main(what: str, *arguments: str) -> None:
    """Print the results as JSON."""
    lm.config.set("cache", False)
    lm.config.set("providers.local.threads", 1)
    if what == "speed":
        result: dict[str, Any] = speed()
    else:
        picture = Path(arguments[1]) if len(arguments) > 1 else None
        result = quality(Path(arguments[0]), picture)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
