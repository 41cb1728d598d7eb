"""Many dimensions as two: principal components, or UMAP where that is installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from llm_magics.errors import UsageError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

Method = Literal["pca", "umap"]

# How many directions are followed beside those that are wanted, and how often they are turned
# towards the largest: the first two stand to three digits then.
_BESIDE, _TURNS = 10, 8


def projected(vectors: Floats, method: Method) -> tuple[Floats, tuple[float, float] | None]:
    """
    ``vectors`` (n, d) as points (n, 2), the same each time.

    Returns:
        The points; and, of principal components, the share of the variance that each has.

    Raises:
        UsageError: there is no such method, or it is not installed.
    """
    if method not in get_args(Method):
        msg = f"method cannot be {method!r}."
        raise UsageError(msg, hint=nearest(str(method), get_args(Method)))
    return principal(vectors) if method == "pca" else (_umap(vectors), None)


def principal(vectors: Floats) -> tuple[Floats, tuple[float, float]]:
    """
    The two principal components of ``vectors``, by randomised subspace iteration.

    Source: Halko, Martinsson & Tropp, "Finding structure with randomness", 2011, algorithm 4.4.
    """
    centred = vectors - vectors.mean(axis=0)
    wide = min(2 + _BESIDE, *centred.shape)
    basis = np.random.default_rng(0).standard_normal((centred.shape[1], wide)).astype(np.float32)
    for _ in range(_TURNS):
        basis, _ = np.linalg.qr(centred.T @ (centred @ basis))
    _, sizes, turned = np.linalg.svd(centred @ basis, full_matrices=False)
    directions = _signed((basis @ turned.T).T[:2])
    points = np.zeros((len(vectors), 2), np.float32)  # of one dimension the second is nothing
    points[:, : len(directions)] = centred @ directions.T
    whole = float((centred.astype(np.float64) ** 2).sum()) or 1.0
    shares = [float(size) ** 2 / whole for size in sizes[:2]]
    return points, (shares[0], shares[1] if len(shares) > 1 else 0.0)


def _signed(directions: Any) -> Any:
    """Each the way that its largest number is positive: the other way is as right."""
    largest = np.abs(directions).argmax(axis=1)
    signs = np.sign(directions[np.arange(len(directions)), largest])
    return directions * np.where(signs == 0, 1, signs)[:, None]


def _umap(vectors: Floats) -> Floats:
    """
    Neighbours stay neighbours; distances further off mean little.

    Source: McInnes, Healy & Melville, "UMAP", 2018, https://arxiv.org/abs/1802.03426.
    """
    if find_spec("umap") is None:
        msg = "UMAP is not installed."
        raise UsageError(msg, hint='pip install umap-learn, or leave method="umap" out.')
    import umap

    near = min(15, len(vectors) - 1)
    if near < 3:
        return principal(vectors)[0]
    made = umap.UMAP(
        n_neighbors=near,
        metric="cosine",
        random_state=0,
        n_jobs=1,
        init="random" if near < 5 else "spectral",
    )
    points: Floats = np.asarray(made.fit_transform(vectors), np.float32)
    return points
