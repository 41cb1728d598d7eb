"""``lm.plot``: what a column of vectors looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics._async.sync import SyncRunner
from llm_magics._util.validation import check_integer
from llm_magics.dataframes.embed import index_of, vectors_of
from llm_magics.dataframes.projection import Method, clustered, keywords, projected
from llm_magics.dataframes.rows import one_column, values_of
from llm_magics.dataframes.sources import model_for, source_of
from llm_magics.dataframes.vector_plot import VectorPlot
from llm_magics.dataframes.vectors import normalised
from llm_magics.errors import UsageError
from llm_magics.runtime.batch import BatchCall
from llm_magics.runtime.confirm import confirm_batch
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.session import session
from llm_magics.user_code import warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

__all__ = ["VectorPlot", "plot"]

_SHOWN_TEXTS, _LONGEST_TEXT = 8, 200
_MOST_WORDS, _LONGEST_NAME = 6, 48
_LONGEST_ANSWER = 24  # tokens

_ASKED = (
    "These texts belong together:\n\n{}\n\n"
    "What are they about? Answer with a name for the group of one to four words, and nothing else."
)


@dataclass(frozen=True)
class Groups:
    """Texts with their vectors (n, d), the number of the group of each, and the centres (k, d)."""

    texts: Sequence[str]
    vectors: Floats
    numbers: NDArray[np.int64]
    centres: Floats


def named(groups: Groups, model: str | None, otherwise: Sequence[str]) -> list[str]:
    """
    A name for each group, from the texts nearest to its centre; asked once, and kept.

    A model that does not give a name, but a sentence, gets its group called as it would be
    ``otherwise``.

    Raises:
        LLMError: none of them could be named.
    """
    shown = [_typical(groups, number) for number in range(len(groups.centres))]
    asked = [number for number, each in enumerate(shown) if each]
    prompts = [
        Prompt(
            _ASKED.format("\n".join(f"- {text}" for text in shown[number])),
            model=model,
            parameters={"max_tokens": _LONGEST_ANSWER},
            is_kept=True,
        )
        for number in asked
    ]
    call = BatchCall(session, prompts)
    confirm_batch(call)
    with SyncRunner(call) as exchange:
        exchange.finish()
    if prompts and len(call.errors) == len(prompts):
        raise call.errors[0]
    names = list(otherwise)
    unnamed = 0
    for place, number in enumerate(asked):
        answer = call.responses[place]
        name = "" if answer is None or place in call.errors else _name_in(answer.text)
        names[number] = name or names[number]
        unnamed += not name
    if unnamed:
        msg = f"{unnamed} of {len(asked)} groups are called by words of theirs: the model gave no short name."
        warn(msg)
    return names


def _typical(groups: Groups, group: int) -> list[str]:
    """The texts nearest to the centre of a group, each on one line."""
    members = np.flatnonzero(groups.numbers == group)
    likeness = normalised(groups.vectors[members]) @ groups.centres[group]
    nearest = members[np.argsort(-likeness, kind="stable")]
    told = (" ".join(groups.texts[place].split())[:_LONGEST_TEXT] for place in nearest.tolist())
    return [text for text in told if text][:_SHOWN_TEXTS]


def _name_in(answer: str) -> str:
    """The first line of an answer, without what models put around a name; no sentence is one."""
    lines = [line.strip(" \t\"'`*#.:-") for line in answer.splitlines()]
    first = next((line for line in lines if line), "")
    return first if len(first.split()) <= _MOST_WORDS and len(first) <= _LONGEST_NAME else ""


# So many rows tell whether a column is one of texts.
_LOOKED_AT = 100

# So many groups where they are to be named and nobody said how many.
_MOST_GROUPS = 8


def plot(  # noqa: PLR0913 (what a picture has)
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
    A picture of a column of vectors in two dimensions, with the texts where the mouse is.

    Args:
        column: vectors, or texts, which are embedded; a list, array (n, d), or column; or a
            DataFrame with one column of vectors.
        text: what is shown of each point, as long as ``column``; texts show themselves.
        color: what colours the points: a column of numbers, or of groups; the clusters if
            there are some.
        clusters: put the points into so many groups, by k-means, each called by words that
            the others have not.
        label: have the groups named by a model, the setting ``model`` or the one given here,
            which is shown the texts in the middle of each.
        method: ``pca`` (principal components), or ``umap`` where umap-learn is installed.
        model: who embeds texts.

    Returns:
        A picture that shows itself in a notebook; its ``frame`` has the points,
        ``figure()`` is matplotlib's, ``save("plot.png")`` keeps it.

    Raises:
        UsageError: there are fewer than two vectors, or arguments do not fit.
    """
    frame, column = column, one_column(column)
    if text is None and frame is not column and hasattr(frame, "attrs"):
        text = texts_for(frame, column.name)
    vectors = vectors_of(column, model_for(column, model))
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(vectors, axis=1)
    is_there = np.isfinite(norms) & (norms > 0)
    if is_there.sum() < 2:
        msg = f"A picture takes two vectors at least, and this column has {int(is_there.sum())}."
        raise UsageError(msg, hint="Give it more rows; embed them if they have no vectors yet.")
    texts = _texts(column, text, len(vectors))
    colours = None if color is None else _colours(color, len(vectors))
    rows, kept = vectors[is_there], np.flatnonzero(is_there)
    points, shares = projected(rows, method)
    frame = pd.DataFrame(
        {"x": points[:, 0], "y": points[:, 1], "text": [texts[row] for row in kept.tolist()]},
        index=index_of(column)[kept],
    )
    if clusters is not None or label:
        count = _groups(clusters, len(rows))
        numbers, centres = clustered(rows, count)
        shown = frame["text"].tolist()
        names = keywords(shown, numbers, len(centres))
        if label:
            asked = label if isinstance(label, str) else None
            names = named(Groups(shown, rows, numbers, centres), asked, names)
        names = _different(names)
        frame["cluster"] = pd.Categorical.from_codes(numbers.tolist(), categories=pd.Index(names))
    if colours is not None:
        frame["color"] = colours.iloc[kept].set_axis(frame.index)
    missing = len(vectors) - len(rows)
    return VectorPlot(frame, _title(method, shares, len(rows), missing))


def texts_for(frame: pd.DataFrame, on: Any) -> pd.Series[Any] | None:
    """
    Return the column of texts that describes the points of the column ``on``.

    That is the column that was embedded, else the first one of texts; ``None`` where ``on``
    itself holds texts, or no column does.
    """
    if _has_texts(frame[on]):
        return None
    source = source_of(frame, on)
    names = [source] if source is not None else [name for name in frame.columns if name != on]
    columns = (frame[name] for name in names)
    return next(filter(_has_texts, columns), None)


def _has_texts(column: Any) -> bool:
    return getattr(column, "ndim", 1) == 1 and any(
        isinstance(value, str) for value in column.head(_LOOKED_AT)
    )


def _different(names: list[str]) -> list[str]:
    """Names of which none occurs twice, for a model may call two groups the same."""
    told: dict[str, int] = {}
    for number, name in enumerate(names):
        told[name if name not in told else f"{name} ({number + 1})"] = number
    return list(told)


def _texts(column: Any, text: Any, count: int) -> list[str]:
    """What is shown of each row: ``text``, or the column's own, or where it stands in the index."""
    told = _as_long(column if text is None else text, count, "text")
    labels = index_of(column)
    if text is None and not any(isinstance(value, str) for value in told):
        return [str(label) for label in labels]
    return [
        "" if pd.api.types.is_scalar(value) and pd.isna(value) else str(value) for value in told
    ]


def _colours(color: Any, count: int) -> pd.Series[Any]:
    """What colours each row, of the type that it was given in."""
    values = _as_long(color, count, "color")
    if any(pd.api.types.is_list_like(value) for value in values):
        msg = "color is a column of numbers or of names, and this holds lists."
        raise UsageError(msg, hint="Give it another column.")
    given = color if isinstance(color, pd.Series) else pd.Series(values)
    return given.reset_index(drop=True)


def _as_long(values: Any, count: int, what: str) -> list[Any]:
    given = list(values) if getattr(values, "ndim", 1) != 1 else values_of(values)
    if len(given) != count:
        msg = f"{what} has {len(given):,} values, and there are {count:,} vectors."
        raise UsageError(msg, hint=f"Give {what} a column of the same frame.")
    return given


def _groups(wanted: int | None, count: int) -> int:
    """How many groups; unless that is said, more for more vectors."""
    if wanted is None:
        return int(min(_MOST_GROUPS, max(2, round((count / 2) ** 0.5)), count))
    return check_integer("clusters", wanted, most=count)


def _title(method: Method, shares: tuple[float, float] | None, count: int, missing: int) -> str:
    told = [f"{count:,} vectors"]
    told += [f"{missing:,} missing"] if missing else []
    if shares is None:
        return " · ".join([*told, "UMAP"])
    return " · ".join([*told, f"2 principal components, {sum(shares):.0%} of the variance"])
