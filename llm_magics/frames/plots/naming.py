"""What the texts of a group have in common, in a model's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.engine.exchange import Exchange
from llm_magics.engine.many import ManyCall
from llm_magics.engine.prompt import Prompt
from llm_magics.engine.session import session
from llm_magics.frames.search import normalised

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_SHOWN_TEXTS, _LONGEST_TEXT, _LONGEST_NAME = 8, 200, 40
_LONGEST_ANSWER = 24  # tokens

_ASKED = (
    "These texts belong together:\n\n{}\n\n"
    "What are they about? Answer with a name for the group of one to four words, and nothing else."
)


def named(
    texts: Sequence[str | None],
    vectors: Floats,
    numbers: NDArray[np.int64],
    centres: Floats,
    model: str | None,
) -> list[str]:
    """
    A name for each group, from the texts nearest to its centre; asked once, and kept.

    Raises:
        LLMError: none of them could be named.
    """
    rows = normalised(vectors)
    shown = [_typical(texts, rows, numbers, centres, group) for group in range(len(centres))]
    groups = [number for number, each in enumerate(shown) if each]
    prompts = [
        Prompt(
            _ASKED.format("\n".join(f"- {text}" for text in shown[number])),
            model=model,
            parameters={"max_tokens": _LONGEST_ANSWER},
            is_kept=True,
        )
        for number in groups
    ]
    call = ManyCall(session, prompts)
    with Exchange(call) as exchange:
        exchange.finish()
    if prompts and len(call.errors) == len(prompts):
        raise call.errors[0]
    names = [f"group {number + 1}" for number in range(len(centres))]
    for place, number in enumerate(groups):
        answer = call.responses[place]
        if place not in call.errors and answer is not None:
            names[number] = _name_in(answer.text) or names[number]
    return names


def _typical(
    texts: Sequence[str | None],
    rows: Floats,
    numbers: NDArray[np.int64],
    centres: Floats,
    group: int,
) -> list[str]:
    """The texts nearest to the centre of a group, each on one line."""
    members = np.flatnonzero(numbers == group)
    nearest = members[np.argsort(-(rows[members] @ centres[group]), kind="stable")]
    told = (" ".join((texts[place] or "").split())[:_LONGEST_TEXT] for place in nearest.tolist())
    return [text for text in told if text][:_SHOWN_TEXTS]


def _name_in(answer: str) -> str:
    """The first line of an answer, without what models put around a name."""
    lines = [line.strip(" \t\"'`*#.:-") for line in answer.splitlines()]
    first = next((line for line in lines if line), "")
    return first if len(first) <= _LONGEST_NAME else f"{first[: _LONGEST_NAME - 1]}…"
