"""
Whether a server gives a text the same vector in a batch as alone; some have not (ollama/ollama#6262).

Only servers on one's own machine are asked, for whom one text more costs nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.engine.road import Route
from llm_magics.engine.session import Session
from llm_magics.errors import ProviderError
from llm_magics.user_code import warn

if TYPE_CHECKING:
    from llm_magics.engine.embedding.landing import Floats

# Rounding in another order moves a vector by far less than this.
_ALIKE = 0.99


async def check(
    session: Session,
    route: Route,
    send: Callable[[Sequence[str]], Awaitable[Floats]],
    batch: tuple[Sequence[str], Floats],
) -> None:
    """Warn, once for a model, where a text of ``batch`` gets another vector when it is alone."""
    texts, rows = batch
    is_known = route.name in session.checked_batches
    if is_known or len(texts) < 2 or not route.provider.batches_may_differ(route.model):
        return
    session.checked_batches.add(route.name)
    try:
        (alone,) = await send(texts[-1:])
    except ProviderError:  # the batch itself has come, and that is what was asked for
        return
    lengths = float(np.linalg.norm(alone) * np.linalg.norm(rows[-1]))
    if alone.shape == rows[-1].shape and float(alone @ rows[-1]) < _ALIKE * lengths:
        told = float(alone @ rows[-1]) / lengths
        msg = (
            f"{route.name} gives a text another vector in a batch than alone (cosine {told:.3f}): "
            "its batches cannot be trusted. Embed with batch_size=1, or update the server."
        )
        warn(msg)
