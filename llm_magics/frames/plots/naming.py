"""What the texts of a group have in common, in a model's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llm_magics._async.sync import Exchange
from llm_magics.frames.search import normalised
from llm_magics.runtime.batch import ManyCall
from llm_magics.runtime.confirm import allowed
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.session import session
from llm_magics.user_code import warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

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
    call = ManyCall(session, prompts)
    allowed(call)
    with Exchange(call) as exchange:
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
