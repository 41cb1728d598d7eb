"""
The models in the Hugging Face hub's own cache: listed, fetched, deleted.

A download runs in a process of its own, because a thread could not be stopped when the user
stops waiting; the hub's client goes on where it was cut off.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from llm_magics._async.concurrency import waiting_for
from llm_magics.errors import ModelNotFoundError, WeightsError, nearest
from llm_magics.progress import Progress
from llm_magics.secrets import scrub

# Weights in safetensors alone where there are such: the older format can hold code.
_DOWNLOAD = """
import json, sys
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.utils import disable_progress_bars
disable_progress_bars()
files = HfApi().model_info(sys.argv[1], files_metadata=True).siblings
plain = ("onnx/", "openvino/", "coreml/", "tf_model", "flax_model", "rust_model")
kept = [each for each in files if not each.rfilename.startswith(plain)]
safe = any(each.rfilename.endswith(".safetensors") for each in kept)
old = (".bin", ".pt", ".pth", ".msgpack", ".h5", ".ot") if safe else ()
kept = [each for each in kept if not each.rfilename.endswith((".gguf", ".onnx", *old))]
print(json.dumps({"total": sum(each.size or 0 for each in kept)}), flush=True)
snapshot_download(sys.argv[1], allow_patterns=[each.rfilename for each in kept])
"""


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A model in the cache: its name there, and its bytes on disk."""

    name: str
    size_bytes: int


def cached_models() -> list[CachedModel]:
    """The models in the cache that hold a configuration, by name."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        found = scan_cache_dir().repos
    except CacheNotFound:
        return []
    return sorted(
        (
            CachedModel(repo.repo_id, repo.size_on_disk)
            for repo in found
            if repo.repo_type == "model" and cached_folder(repo.repo_id) is not None
        ),
        key=lambda model: model.name,
    )


def cached_folder(repository: str) -> Path | None:
    """Where a model lies in the cache, if it is there; never asks the network."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repository, "config.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def delete(repository: str) -> None:
    """Delete every revision of a model from the cache."""
    from huggingface_hub import scan_cache_dir

    names = [model.name for model in cached_models()]
    if repository not in names:
        msg = f"The hub's cache has no model {repository}."
        raise ModelNotFoundError(msg, hint=nearest(repository, names), model=repository)
    cache = scan_cache_dir()
    revisions = [
        revision.commit_hash
        for repo in cache.repos
        if repo.repo_id == repository and repo.repo_type == "model"
        for revision in repo.revisions
    ]
    cache.delete_revisions(*revisions).execute()


async def fetch(repository: str) -> AsyncGenerator[Progress, None]:
    """Download a model into the cache; leaving early stops the download."""
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as log:
        process = _downloading(repository, told, log)
        before, total = _bytes_of(repository), None
        async for elapsed_s in waiting_for(process):
            total = total or _total(told)
            done = _bytes_of(repository) - before
            yield Progress(f"fetching {repository}", done, total, elapsed_s=elapsed_s)
        if process.returncode != 0:
            log.seek(0)
            raise _failure(repository, log.read().decode("utf-8", "replace"))
        yield Progress(f"fetching {repository}", total or 0, total)


def _downloading(repository: str, told: IO[bytes], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _DOWNLOAD, repository],
        stdin=subprocess.DEVNULL,
        stdout=told,
        stderr=log,
    )


def _total(told: IO[bytes]) -> int | None:
    told.seek(0)
    line = told.readline()
    return int(json.loads(line)["total"]) if line.endswith(b"\n") else None


def _bytes_of(repository: str) -> int:
    """The bytes on disk of a model, those of files that are still coming among them."""
    from huggingface_hub.constants import HF_HUB_CACHE

    blobs = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "blobs"
    return sum(file.stat().st_size for file in blobs.glob("*")) if blobs.is_dir() else 0


def _failure(repository: str, log: str) -> WeightsError | ModelNotFoundError:
    text = scrub(log)
    if "RepositoryNotFoundError" in text or "404" in text:
        msg = f"The hub has no model {repository}, or it is private."
        hint = "Check the name; private and gated models need HF_TOKEN."
        return ModelNotFoundError(msg, hint=hint, model=repository)
    lines = [line for line in text.splitlines() if line.strip()]
    why = next((line for line in reversed(lines) if "Error" in line.split(":")[0]), "it failed")
    msg = f"{repository} could not be fetched from the hub: {why[:200]}"
    hint = "Check the network; gated models need HF_TOKEN."
    return WeightsError(msg, hint=hint, model=repository, retryable=True)
