"""
The probabilities of labels and values, from the log probabilities of tokens.

A label is usually several tokens, and the model could write each label in several ways. The
probability of each label is the sum over the tokens that lead to it, at the first token in which
the labels differ, and then along the label that the answer has:

- At each token, the labels that its text excludes branch off. The probability of a label that
  branches off is that of the alternatives that begin it. An alternative that begins several such
  labels is divided equally.
- A label that no listed alternative begins is unseen. Its probability is at most that of the least
  likely alternative in the list, and all unseen labels together at most the rest to 1. It gets this
  bound, so the probability of the label in the answer is not overestimated.
- Labels that share their beginning can still be different tokens, such as ``1`` and ``10``. The
  probability of an alternative that begins only some of the labels that stay is theirs.
- The results are divided by their sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from llm_magics.types import TokenLogprob

# Below this difference, exp() is 0 anyway.
_MIN_LOG = -700.0


def normalise(logs: Mapping[str, float]) -> dict[str, float]:
    """Return the probabilities of which ``logs`` are the logarithms, up to a common factor."""
    highest = max(logs.values())
    weights = {name: math.exp(max(_MIN_LOG, log - highest)) for name, log in logs.items()}
    total = math.fsum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def calibrate(
    logs: Mapping[str, float], neutral: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """
    Return the probabilities of labels, corrected for the model's preference among them.

    The preference is measured with texts without content: contextual calibration, as in
    https://arxiv.org/abs/2102.09690, with the geometric mean over several texts.

    Args:
        logs: the logarithms of the labels' probabilities for a text.
        neutral: the same for each text without content.
    """
    if not neutral:
        return normalise(logs)
    biases = {name: math.fsum(each[name] for each in neutral) / len(neutral) for name in logs}
    return normalise({name: log - biases[name] for name, log in logs.items()})


def token_starts(tokens: Sequence[TokenLogprob]) -> list[int]:
    """Return the position of each token in the bytes of the answer, and the end of the last one."""
    return list(accumulate((len(each.as_bytes) for each in tokens), initial=0))


def value_probability(tokens: Sequence[TokenLogprob], start: int, end: int) -> float:
    """Return the probability of the bytes from ``start`` to ``end``, as the answer has them."""
    starts = token_starts(tokens)
    inside = [
        token.logprob
        for token, first, last in zip(tokens, starts, starts[1:], strict=False)
        if first < end and last > start
    ]
    return math.exp(max(_MIN_LOG, math.fsum(inside))) if inside else 0.0


def label_probabilities(
    tokens: Sequence[TokenLogprob], start: int, labels: Mapping[str, bytes]
) -> dict[str, float] | None:
    """
    Return the probability of each label; ``None`` if the answer has none of them.

    Args:
        tokens: the tokens of the answer, with their alternatives.
        start: the position of the label in the bytes of the answer.
        labels: the bytes of each label, up to and including its end, as the answer would have them.
    """
    whole = b"".join(token.as_bytes for token in tokens)
    if not any(whole.startswith(data, start) for data in labels.values()):
        return None
    masses = dict.fromkeys(labels, 0.0)
    live, path = set(labels), 1.0
    for token, first in zip(tokens, token_starts(tokens), strict=False):
        said = token.as_bytes
        if first + len(said) <= start or len(live) < 2:
            continue
        # A token may begin before the label, for example with a quotation mark.
        rest = {name: whole[first:start] + labels[name][max(0, first - start) :] for name in live}
        staying = {name for name in live if _agree(said, rest[name])}
        if not staying:
            return None
        stays, shares = _branch(token, rest, staying, live - staying)
        if shares:
            for name, share in shares.items():
                masses[name] += path * share
            path *= stays
        live = staying
    for name in live:  # more than one only if the answer ends inside the labels
        masses[name] += path / len(live)
    total = math.fsum(masses.values())
    return {name: mass / total for name, mass in masses.items()} if total > 0 else None


def _agree(said: bytes, rest: bytes) -> bool:
    """Return whether the token ``said`` may begin ``rest``, or continue after it."""
    return rest.startswith(said) or said.startswith(rest)


def _branch(
    token: TokenLogprob, rest: Mapping[str, bytes], staying: set[str], left: set[str]
) -> tuple[float, dict[str, float]]:
    """
    Return the probability of staying with the answer, and of the labels of alternatives to it.

    These are all labels in ``left``, and those in ``staying`` that an alternative begins, and
    others in ``staying`` not.
    """
    stays = math.exp(max(_MIN_LOG, token.logprob))
    others = [each for each in token.top if each.as_bytes != token.as_bytes]
    shares = dict.fromkeys(left, 0.0)
    for other in others:
        probability = math.exp(max(_MIN_LOG, other.logprob))
        begun = {name for name in left if _agree(other.as_bytes, rest[name])}
        begun = begun or {name for name in staying if _agree(other.as_bytes, rest[name])}
        if begun == staying:
            stays += probability  # the same label, divided into other tokens
            continue
        for name in begun:
            shares[name] = shares.get(name, 0.0) + probability / len(begun)
    unseen = [name for name, share in shares.items() if share == 0]
    if unseen:
        bound = _unseen_bound(token, others, len(unseen))
        shares |= dict.fromkeys(unseen, bound)
    return stays, shares


def _unseen_bound(token: TokenLogprob, others: Sequence[TokenLogprob], count: int) -> float:
    """Return the highest possible probability of each of ``count`` tokens that are not listed."""
    listed = [math.exp(max(_MIN_LOG, each.logprob)) for each in others]
    least = min(listed, default=1.0)
    remainder = max(0.0, 1.0 - math.fsum(listed) - math.exp(max(_MIN_LOG, token.logprob)))
    return min(least, remainder / count)
