"""
3,708 sentences of Amazon reviews with the mean sentiment rating of twenty people each.

They are in the source distribution of vaderSentiment (MIT licence), by Hutto and Gilbert (2014).
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import llm_magics as lm

VERSION = "3.3.2"
SDIST = f"vaderSentiment-{VERSION}.tar.gz"
INNER = f"vaderSentiment-{VERSION}/additional_resources/hutto_ICWSM_2014.tar.gz"
RATINGS = "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"
MODEL = "local/minilm-l6-v2"


def sentences(folder: Path) -> tuple[list[str], NDArray[np.float32]]:
    """
    Return the sentences and their mean ratings, from -4 (negative) to 4 (positive).

    Args:
        folder: where the source distribution is stored; pip downloads it if it is not there.
    """
    if not (folder / SDIST).exists():
        requirement = f"vaderSentiment=={VERSION}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", ":all:", "--dest", str(folder), requirement]
        subprocess.run(command, check=True)
    with tarfile.open(folder / SDIST) as outer:
        inner = io.BytesIO(member(outer, INNER))
    with tarfile.open(fileobj=inner) as archive:
        lines = member(archive, RATINGS).decode("ascii").splitlines()
    fields = [line.split("\t", 2) for line in lines]
    return [text for _, _, text in fields], np.array([f[1] for f in fields], np.float32)


def member(archive: tarfile.TarFile, name: str) -> bytes:
    """Return the content of a file in an archive."""
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def vectors(folder: Path) -> NDArray[np.float32]:
    """Return the MiniLM vectors of the sentences (3,708 × 384), stored in ``folder``."""
    path = folder / "amazon_minilm.npy"
    if not path.exists():
        np.save(path, np.asarray(lm.embed(sentences(folder)[0], model=MODEL), np.float32))
    stored: NDArray[np.float32] = np.load(path)
    return stored
