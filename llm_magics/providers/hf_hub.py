"""
The models in the cache of the Hugging Face hub: list, download and delete them.

A model is a repository, ``OWNER/NAME``, or a single GGUF file, ``hf:OWNER/REPO/FILE.gguf``. A
download runs in a separate process, because a thread could not be stopped when the user cancels it.
The hub's client resumes an interrupted download.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from llm_magics._async.concurrency import wait_for_process
from llm_magics.errors import ConfigurationError, ModelNotFoundError, WeightsError, nearest
from llm_magics.host import Progress
from llm_magics.secrets import environment_value, scrub, strip_whitespace

# Select only weights in safetensors if there are any, because the older formats can contain code.
_DOWNLOAD = """
import json, sys
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.utils import disable_progress_bars
disable_progress_bars()
files = HfApi().model_info(sys.argv[1], files_metadata=True).siblings
plain = ("onnx/", "openvino/", "coreml/", "tf_model", "flax_model", "rust_model")
selected = [each for each in files if not each.rfilename.startswith(plain)]
safe = any(each.rfilename.endswith(".safetensors") for each in selected)
old = (".bin", ".pt", ".pth", ".msgpack", ".h5", ".ot") if safe else ()
selected = [each for each in selected if not each.rfilename.endswith((".gguf", ".onnx", *old))]
print(json.dumps({"total": sum(each.size or 0 for each in selected)}), flush=True)
snapshot_download(sys.argv[1], allow_patterns=[each.rfilename for each in selected])
"""


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A model in the cache: its name and its size on disk, in bytes."""

    name: str
    size_bytes: int


def cached_models() -> list[CachedModel]:
    """Return the models in the cache that have a configuration, sorted by name."""
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
    """Return the folder of a model in the cache, or ``None``; never uses the network."""
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
        msg = f"The Hugging Face cache has no model {repository}."
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
    """Download a model into the cache and yield the progress; closing early stops the download."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as log:
        process = _start_download(repository, output, log)
        before, total = _size_on_disk(repository), None
        async with aclosing(wait_for_process(process)) as steps:
            async for elapsed_s in steps:
                total = total or _read_total(output)
                done = _size_on_disk(repository) - before
                yield Progress(f"downloading {repository}", done, total, elapsed_s=elapsed_s)
        if process.returncode != 0:
            log.seek(0)
            raise _download_error(repository, log.read().decode("utf-8", "replace"))
        yield Progress(f"downloading {repository}", total or 0, total)


def _start_download(repository: str, output: IO[bytes], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _DOWNLOAD, repository],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=log,
    )


def _read_total(output: IO[bytes]) -> int | None:
    output.seek(0)
    line = output.readline()
    return int(json.loads(line)["total"]) if line.endswith(b"\n") else None


def _size_on_disk(repository: str) -> int:
    """Return the bytes on disk of a model, including partly downloaded files."""
    from huggingface_hub.constants import HF_HUB_CACHE

    blobs = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "blobs"
    return sum(file.stat().st_size for file in blobs.glob("*")) if blobs.is_dir() else 0


def _download_error(repository: str, log: str) -> WeightsError | ModelNotFoundError:
    text = scrub(log)
    if "RepositoryNotFoundError" in text or "404" in text:
        msg = f"The Hugging Face hub has no public model {repository}."
        hint = "Check the name; private and gated models need HF_TOKEN."
        return ModelNotFoundError(msg, hint=hint, model=repository)
    lines = [line for line in text.splitlines() if line.strip()]
    why = next((line for line in reversed(lines) if "Error" in line.split(":")[0]), "it failed")
    msg = f"Could not download {repository} from the Hugging Face hub: {why[:200]}"
    hint = "Check the network; gated models need HF_TOKEN."
    return WeightsError(msg, hint=hint, model=repository, retryable=True)


_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def find_token() -> tuple[str, str]:
    """
    Return the user's token and its source; two empty strings if none is found.

    The order is that of ``huggingface_hub``: first the environment, then the file that
    ``hf auth login`` writes.
    """
    for name in _VARIABLES:
        if value := environment_value(name):
            return value, name
    path = _token_file()
    try:
        value = strip_whitespace(path.read_text("utf-8"))
    except (OSError, ValueError):  # the file is missing or not text
        return "", ""
    return (value, f"file {path}") if value else ("", "")


def _token_file() -> Path:
    if own := os.environ.get("HF_TOKEN_PATH"):
        return Path(own)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(home).expanduser() / "token"


_PREFIX = "hf:"

_GGUF_DOWNLOAD = """
import sys
from huggingface_hub import hf_hub_download
from huggingface_hub.utils import disable_progress_bars
disable_progress_bars()
hf_hub_download(sys.argv[1], sys.argv[2])
"""


def is_hub_name(model: str) -> bool:
    """Return whether ``model`` names a file on the hub."""
    return model.startswith(_PREFIX)


def cached_file(model: str) -> Path | None:
    """Return the path of the file in the hub's cache, or ``None``; never uses the network."""
    repository, file = _parse_hub_name(model)
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


async def fetch_gguf(model: str) -> AsyncGenerator[Progress, None]:
    """Download the file into the hub's cache; closing early stops the download."""
    repository, file = _parse_hub_name(model)
    with tempfile.TemporaryFile() as log:
        process = _start_gguf_download(repository, file, log)
        async with aclosing(wait_for_process(process)) as steps:
            async for elapsed_s in steps:
                yield Progress(f"downloading {file} from the hub", elapsed_s=elapsed_s)
        if process.returncode != 0:
            log.seek(0)
            raise _gguf_download_error(model, log.read().decode("utf-8", "replace"))


def _start_gguf_download(repository: str, file: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _GGUF_DOWNLOAD, repository, file],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )


def _parse_hub_name(model: str) -> tuple[str, str]:
    owner, _, rest = model.removeprefix(_PREFIX).partition("/")
    name, _, file = rest.partition("/")
    if not file.endswith(".gguf"):
        msg = f'"{model}" is not a file on the Hugging Face hub.'
        raise ModelNotFoundError(msg, hint="Use local/hf:OWNER/REPO/FILE.gguf.", model=model)
    if find_spec("huggingface_hub") is None:
        msg = "Models from the Hugging Face hub need the package huggingface_hub."
        hint = "Run: pip install huggingface_hub"
        raise ConfigurationError(msg, hint=hint, provider="local", model=model)
    return f"{owner}/{name}", file


def _gguf_download_error(model: str, log: str) -> WeightsError:
    lines = [line for line in scrub(log).splitlines() if line.strip()]
    # The last line that starts an error message; the lines after it continue the message.
    why = next((line for line in reversed(lines) if "Error" in line.split(":")[0]), "it failed")
    msg = f"Could not download {model} from the Hugging Face hub: {why[:200]}"
    hint = "Check the name and the network; private models need HF_TOKEN."
    return WeightsError(msg, hint=hint, provider="local", model=model, retryable=True)
