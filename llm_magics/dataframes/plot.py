"""``lm.plot``: plot a column of vectors in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics._async.sync import SyncRunner
from llm_magics._util.plotting import check_matplotlib
from llm_magics._util.validation import check_integer
from llm_magics.dataframes.embed import get_index, resolve_vectors
from llm_magics.dataframes.projection import Method, check_method, cluster, keywords, project
from llm_magics.dataframes.rows import to_list
from llm_magics.dataframes.vector_plot import VectorPlot
from llm_magics.dataframes.vectors import normalize, resolve_column, resolve_model, source_column
from llm_magics.errors import UsageError
from llm_magics.host import Progress, ProgressDisplay, current_host, warn
from llm_magics.runtime.batch import BatchCall
from llm_magics.runtime.confirm import confirm_batch
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.session import session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

__all__ = ["VectorPlot", "plot"]

_SAMPLE_TEXTS, _MAX_TEXT = 8, 200
_MAX_NAME_WORDS, _MAX_NAME_LENGTH = 6, 48
_MAX_ANSWER_TOKENS = 24  # tokens

_NAMING_PROMPT = (
    "These texts belong together:\n\n{}\n\n"
    "What are they about? Answer with a name for the group of one to four words, and nothing else."
)


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Texts with their vectors (n, d), the group number of each, and the group centres (k, d)."""

    texts: Sequence[str]
    vectors: Floats
    numbers: NDArray[np.int64]
    centres: Floats


def name_clusters(groups: Clusters, model: str | None, otherwise: Sequence[str]) -> list[str]:
    """
    Return a name for each group, from a model that reads the texts nearest to its centre.

    Answers are cached. If the model fails or returns a sentence instead of a name, the group has
    its name in ``otherwise``.

    Raises:
        LLMError: the calls for all groups failed.
    """
    samples = [_typical_texts(groups, number) for number in range(len(groups.centres))]
    with_texts = [number for number, each in enumerate(samples) if each]
    prompts = [
        Prompt(
            text=_NAMING_PROMPT.format("\n".join(f"- {text}" for text in samples[number])),
            model=model,
            parameters={"max_tokens": _MAX_ANSWER_TOKENS},
            is_kept=True,
        )
        for number in with_texts
    ]
    call = BatchCall(session, prompts)
    confirm_batch(call)
    with SyncRunner(call) as exchange:
        exchange.finish()
    if prompts and len(call.errors) == len(prompts):
        raise call.errors[0]
    names = list(otherwise)
    unnamed = 0
    for position, number in enumerate(with_texts):
        answer = call.responses[position]
        name = "" if answer is None or position in call.errors else _parse_name(answer.text)
        names[number] = name or names[number]
        unnamed += not name
    if unnamed:
        msg = f"{unnamed} of {len(with_texts)} groups are named by their keywords: the model returned no short name."
        warn(msg)
    return names


def _typical_texts(groups: Clusters, group: int) -> list[str]:
    """Return the texts nearest to the centre of a group, each on one line."""
    members = np.flatnonzero(groups.numbers == group)
    likeness = normalize(groups.vectors[members]) @ groups.centres[group]
    nearest = members[np.argsort(-likeness, kind="stable")]
    lines = (" ".join(groups.texts[row].split())[:_MAX_TEXT] for row in nearest.tolist())
    return [text for text in lines if text][:_SAMPLE_TEXTS]


def _parse_name(answer: str) -> str:
    """Return the first line of an answer without quotes and markup, or ``""`` if it is too long."""
    lines = [line.strip(" \t\"'`*#.:-") for line in answer.splitlines()]
    first = next((line for line in lines if line), "")
    return (
        first if len(first.split()) <= _MAX_NAME_WORDS and len(first) <= _MAX_NAME_LENGTH else ""
    )


# The number of rows to inspect to find out whether a column has texts.
_SAMPLE_ROWS = 100

# The largest default number of groups.
_MAX_CLUSTERS = 8


def plot(  # noqa: PLR0913 (a public function)
    column: Any,
    *,
    text: Any = None,
    color: Any = None,
    clusters: int | None = None,
    label: bool | str = False,
    method: Method = "pca",
    model: str | None = None,
) -> VectorPlot:
    """
    Plot a column of vectors in two dimensions; the text of a point appears under the mouse.

    Args:
        column: vectors, or texts, which are embedded; a list, array (n, d), or column; or a
            DataFrame with one column of vectors.
        text: the text of each point; by default ``column`` itself, if it has texts.
        color: values for the colours of the points, numbers or groups; by default the clusters,
            if any.
        clusters: number of groups (k-means). Each is named by its most specific words.
        label: let a model name the groups: ``True`` for the setting ``model``, or a model's
            name. It reads the texts nearest to the centre of each group.
        method: ``pca`` (principal components), or ``umap`` if umap-learn is installed.
        model: the embedding model for texts.

    Returns:
        a plot that a notebook displays. ``frame`` has the points, ``figure()`` returns a
        matplotlib figure, ``save("plot.png")`` saves it.

    Raises:
        UsageError: there are fewer than two vectors, an argument is invalid, or scikit-learn or
            matplotlib is not installed.
    """
    plotted = project_column(
        column,
        text=text,
        color=color,
        clusters=clusters,
        label=label,
        method=method,
        model=model,
    )
    return plotted.plot


@dataclass(frozen=True, kw_only=True)
class PlottedColumn:
    """
    A column of vectors with its plot.

    Attributes:
        plot: the plot of the rows that have a vector.
        positions: the positions of these rows in the column.
        vectors: the vectors of all rows, of shape (n, d).
    """

    plot: VectorPlot
    positions: NDArray[np.int64]
    vectors: Floats


def project_column(  # noqa: PLR0913 (as for `plot`)
    column: Any,
    *,
    text: Any = None,
    color: Any = None,
    clusters: int | None = None,
    label: bool | str = False,
    method: Method = "pca",
    model: str | None = None,
) -> PlottedColumn:
    """Project a column and name its clusters; see `plot`. Long steps show their progress."""
    check_method(method)
    check_matplotlib()
    frame, column = column, resolve_column(column)
    if text is None and frame is not column and hasattr(frame, "attrs"):
        text = find_texts(frame, column.name)
    vectors = resolve_vectors(column, resolve_model(column, model))
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(vectors, axis=1)
    is_there = np.isfinite(norms) & (norms > 0)
    if is_there.sum() < 2:
        msg = f"A plot needs at least two vectors; this column has {int(is_there.sum())}."
        raise UsageError(msg, hint="Pass more rows, or embed them first.")
    texts = _texts(column, text, len(vectors))
    colours = None if color is None else _colours(color, len(vectors))
    rows, positions = vectors[is_there], np.flatnonzero(is_there)
    show = _progress_display(len(rows), method)
    try:
        points, shares = project(rows, method, show)
        points_frame = pd.DataFrame(
            {
                "x": points[:, 0],
                "y": points[:, 1],
                "text": [texts[row] for row in positions.tolist()],
            },
            index=get_index(column)[positions],
        )
        if clusters is not None or label:
            show(Progress(f"grouping {len(rows):,} vectors"))
            groups = _cluster(points_frame["text"].tolist(), rows, clusters)
    finally:
        show(None)
    if clusters is not None or label:
        points_frame["cluster"] = _named_clusters(groups, label)
    if colours is not None:
        points_frame["color"] = colours.iloc[positions].set_axis(points_frame.index)
    title = _title(method, shares, len(rows), len(vectors) - len(rows))
    return PlottedColumn(
        plot=VectorPlot(points_frame, title), positions=positions, vectors=vectors
    )


# With fewer vectors, principal components and clusters take less than a second.
_SLOW_ROWS = 20_000


def _progress_display(count: int, method: Method) -> ProgressDisplay:
    """Return the display for steps that take a while; without effect for quick ones."""
    if method == "umap" or count >= _SLOW_ROWS:
        return current_host().create_progress_display()
    return lambda progress: None


def _cluster(texts: Sequence[str], vectors: Floats, clusters: int | None) -> Clusters:
    numbers, centres = cluster(vectors, _cluster_count(clusters, len(vectors)))
    return Clusters(texts=texts, vectors=vectors, numbers=numbers, centres=centres)


def _named_clusters(groups: Clusters, label: bool | str) -> Any:
    """Return the cluster of each point, under the name that its keywords or a model give it."""
    names = keywords(groups.texts, groups.numbers, len(groups.centres))
    if label:
        names = name_clusters(groups, label if isinstance(label, str) else None, names)
    names = _make_unique(names)
    return pd.Categorical.from_codes(groups.numbers.tolist(), categories=pd.Index(names))


def find_texts(frame: pd.DataFrame, on: Any) -> pd.Series[Any] | None:
    """
    Return the column of texts that describes the points of the column ``on``.

    This is the column that was embedded, otherwise the one with the most characters of text, which
    is not a column of names or categories; ``None`` if ``on`` itself has texts, or no column has.
    """
    if _has_texts(frame[on]):
        return None
    source = source_column(frame, on)
    names = [source] if source is not None else [name for name in frame.columns if name != on]
    columns = [frame[name] for name in names]
    return max(filter(_has_texts, columns), key=_count_characters, default=None)


def _has_texts(column: Any) -> bool:
    return getattr(column, "ndim", 1) == 1 and any(
        isinstance(value, str) for value in column.head(_SAMPLE_ROWS)
    )


def _count_characters(column: Any) -> int:
    values = {value for value in column.head(_SAMPLE_ROWS) if isinstance(value, str)}
    return sum(map(len, values))


def _make_unique(names: list[str]) -> list[str]:
    """Make the names unique, because a model may give two groups the same name."""
    unique: dict[str, int] = {}
    for number, name in enumerate(names):
        unique[name if name not in unique else f"{name} ({number + 1})"] = number
    return list(unique)


def _texts(column: Any, text: Any, count: int) -> list[str]:
    """Return the text of each row: ``text``, the column's own, or the label of the index."""
    values = _check_length(column if text is None else text, count, "text")
    labels = get_index(column)
    if text is None and not any(isinstance(value, str) for value in values):
        return [str(label) for label in labels]
    return [
        "" if pd.api.types.is_scalar(value) and pd.isna(value) else str(value) for value in values
    ]


def _colours(color: Any, count: int) -> pd.Series[Any]:
    """Return the values for the colours of the rows, with their dtype."""
    values = _check_length(color, count, "color")
    if any(pd.api.types.is_list_like(value) for value in values):
        msg = "color needs a column of numbers or names; this one holds lists."
        raise UsageError(msg, hint="Pass another column.")
    colours = color if isinstance(color, pd.Series) else pd.Series(values)
    return colours.reset_index(drop=True)


def _check_length(values: Any, count: int, what: str) -> list[Any]:
    items = list(values) if getattr(values, "ndim", 1) != 1 else to_list(values)
    if len(items) != count:
        msg = f"{what} has {len(items):,} values for {count:,} vectors."
        raise UsageError(msg, hint=f"Pass a column of the same DataFrame as {what}.")
    return items


def _cluster_count(clusters: int | None, count: int) -> int:
    """Return the number of groups; by default it grows with the number of vectors."""
    if clusters is None:
        return int(min(_MAX_CLUSTERS, max(2, round((count / 2) ** 0.5)), count))
    return check_integer("clusters", clusters, most=count)


def _title(method: Method, shares: tuple[float, float] | None, count: int, missing: int) -> str:
    parts = [f"{count:,} vectors"]
    parts += [f"{missing:,} missing"] if missing else []
    if shares is None:
        return " · ".join([*parts, "UMAP"])
    return " · ".join([*parts, f"2 principal components, {sum(shares):.0%} of the variance"])
