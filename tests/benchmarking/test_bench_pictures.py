"""Pictures of measurements: what is drawn is what was measured, readable in grey and on any page."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llm_magics.benchmarking import plots
from llm_magics.benchmarking.measurements import Measurements
from llm_magics.benchmarking.plots import frontier_points
from llm_magics.errors import UsageError

pytest.importorskip("matplotlib")


def measured(
    models: dict[str, dict[str, float]], *, loads: tuple[int, ...] = (1,), count: int = 8
) -> Measurements:
    """Measurements of ``models`` with these means, slower under load."""
    draw = np.random.default_rng(1)
    rows = []
    for load in loads:
        for model, told in models.items():
            for n in range(count):
                took = told.get("e2e_s", 1.0) * load * (1 + draw.random() / 10)
                rows.append(
                    {
                        "asked": model,
                        "prompt": f"p{n}",
                        "repeat": 0,
                        "round": 0,
                        "concurrency": load,
                        "error": None,
                        "cached": False,
                        "finish_reason": "stop",
                        "retries": 0,
                        "output_tokens": 10,
                        "ttft_s": took / 4,
                        "e2e_s": took,
                        "tokens_per_s": 10 / took,
                        "sent_s": float(n),
                        "ended_s": n + took,
                        "cost_usd": told.get("cost_usd", 0.0),
                        "score_exact": float(n < told.get("right", 0)),
                    }
                )
    return Measurements(pd.DataFrame(rows))


MODELS = {
    "cheap": {"e2e_s": 0.5, "cost_usd": 1.0, "right": 3},
    "good": {"e2e_s": 1.0, "cost_usd": 5.0, "right": 7},
    "worse": {"e2e_s": 2.0, "cost_usd": 6.0, "right": 5},
}


def drawn_by(line: Any) -> tuple[Any, ...]:
    """What tells a line from another without its colour."""
    return line.get_linestyle(), line.get_marker()


def test_load_is_drawn_as_it_was_measured() -> None:
    """TTFT and tokens a second of each model over the loads."""
    runs = measured(MODELS, loads=(1, 4, 8))
    figure = runs.plot_load()
    first, speed = figure.axes
    told = runs.summary()
    for ax, column in ((first, "ttft_s"), (speed, "throughput_tokens_per_s")):
        for line, model in zip(ax.lines, MODELS, strict=True):
            assert line.get_xdata().tolist() == [1, 4, 8]
            assert line.get_ydata().tolist() == told.loc[model, column].tolist()
    assert [text.get_text().strip() for text in speed.get_legend().get_texts()] == list(MODELS)


def test_latency_is_drawn_as_shares() -> None:
    """From none to all of the requests, a line a model; axes for each load."""
    runs = measured(MODELS)
    (ax,) = runs.plot_latency().axes
    for line, model in zip(ax.lines, MODELS, strict=True):
        values = np.sort(runs.loc[runs.asked == model, "e2e_s"])
        assert np.unique(line.get_xdata()).tolist() == np.unique(values).tolist()
        assert (line.get_ydata()[0], line.get_ydata()[-1]) == (0, 1)
    several = measured(MODELS, loads=(1, 4)).plot_latency("ttft_s")
    assert [ax.get_title() for ax in several.axes] == [
        "ttft_s, 24 requests, 1 concurrent",
        "ttft_s, 24 requests, 4 concurrent",
    ]
    low, high = several.axes[0].get_xlim()
    told = measured(MODELS, loads=(1, 4)).ttft_s
    assert low < told.min() < told.max() < high
    assert several.axes[1].get_xlim() == (low, high)


def test_the_frontier_is_who_has_no_better() -> None:
    """In quality and cost both; where nothing costs, by time."""
    told = frontier_points(measured(MODELS).frame, None, None)
    assert told.frontier.tolist() == [True, True, False]
    (ax,) = measured(MODELS).plot_frontier().axes
    line = ax.lines[0]
    assert line.get_xdata().tolist() == [1.0, 5.0]
    assert line.get_ydata().tolist() == [3 / 8, 7 / 8]
    assert "cost" in ax.get_xlabel()
    assert ax.xaxis.get_major_formatter()(0.00042, 0) == "$0.00042"
    free = {model: {**each, "cost_usd": 0.0} for model, each in MODELS.items()}
    assert "e2e_s" in measured(free).plot_frontier().axes[0].get_xlabel()


def test_equals_are_both_on_the_frontier() -> None:
    """And one whose cost is not known is on none."""
    told = frontier_points(measured({"a": MODELS["good"], "b": MODELS["good"]}).frame, None, None)
    assert told.frontier.tolist() == [True, True]
    runs = measured(MODELS)
    runs.loc[runs.asked == "cheap", "cost_usd"] = math.nan
    assert frontier_points(runs.frame, None, None).frontier.tolist() == [False, True, False]


def test_wins_are_written_in_their_fields() -> None:
    """The number, whatever the shade."""
    runs = measured(MODELS)
    (ax,) = runs.plot_wins().axes
    wins = runs.wins()
    told = {
        (round(text.get_position()[1]), round(text.get_position()[0])): text.get_text()
        for text in ax.texts
    }
    assert len(told) == 6
    for (row, column), text in told.items():
        assert text == f"{wins.iloc[row, column]:.0%}"


@pytest.mark.parametrize("name", ["plot_load", "plot_latency", "plot_frontier", "plot_wins"])
def test_every_picture_shows_itself_on_any_page(name: str) -> None:
    """A PNG that lets the page through, with words seen on white and on black."""
    pillow = pytest.importorskip("PIL.Image")
    loads = (1,) if name == "plot_wins" else (1, 4)
    figure = getattr(measured(MODELS, loads=loads), name)()
    image = pillow.open(io.BytesIO(figure._repr_png_()))
    pixels = np.asarray(image.convert("RGBA"))
    assert pixels[0, 0, 3] == 0
    for ax in figure.axes:
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
            assert not text.get_text() or text.get_color() == plots.GREY


def test_models_are_told_apart_in_grey() -> None:
    """By dashes and marks, for as many as there are colours."""
    styles = [plots.line_style(number) for number in range(8)]
    assert len({(style["linestyle"], style["marker"]) for style in styles}) == 8
    lines = measured(MODELS).plot_latency().axes[0].lines
    assert len({drawn_by(line) for line in lines}) == 3


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda runs: runs.plot_load(), "same load"),
        (lambda runs: runs.drop(columns="score_exact").plot_frontier(), "have no score"),
        (lambda runs: runs[runs.asked == "cheap"].plot_wins(), "only one model"),
        (lambda runs: measured(MODELS, loads=(1, 4)).plot_wins(), "several loads"),
        (lambda runs: runs.assign(e2e_s=math.nan).plot_latency(), "e2e_s"),
        (lambda runs: runs.plot_latency("e2e"), "'e2e'"),
        (lambda runs: measured(MODELS, loads=tuple(range(1, 9)), count=2).plot_latency(), "8 loads"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_told(draw: Any, says: str) -> None:
    """And what to do in its place."""
    with pytest.raises(UsageError, match=says) as caught:
        draw(measured(MODELS))
    assert caught.value.hint


def test_names_are_words_and_no_formulas() -> None:
    """Dollars and underscores are drawn as they are."""
    runs = measured({"_a $x^2$": MODELS["good"], "$b$": MODELS["cheap"]}, loads=(1, 2))
    for name in ("plot_load", "plot_latency", "plot_frontier"):
        getattr(runs, name)()._repr_png_()
    runs[runs.concurrency == 2].plot_wins()._repr_png_()
    texts = runs.plot_load().axes[1].get_legend().get_texts()
    assert [text.get_text().strip() for text in texts] == ["_a $x^2$", "$b$"]
