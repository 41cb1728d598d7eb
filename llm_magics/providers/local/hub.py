"""
GGUF files from the Hugging Face hub: ``hf:OWNER/REPO/FILE.gguf``.

They stay in the hub's own cache. The download runs in a process of its own, because a thread
could not be stopped when the user stops waiting.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from llm_magics._async.concurrency import waiting_for
from llm_magics.errors import ConfigurationError, ModelNotFoundError, WeightsError
from llm_magics.progress import Progress
from llm_magics.secrets import scrub

_PREFIX = "hf:"

_DOWNLOAD = """
import sys
from huggingface_hub import hf_hub_download
from huggingface_hub.utils import disable_progress_bars
disable_progress_bars()
hf_hub_download(sys.argv[1], sys.argv[2])
"""


def is_hub_name(model: str) -> bool:
    """Whether ``model`` names a file on the hub."""
    return model.startswith(_PREFIX)


def cached_file(model: str) -> Path | None:
    """Where the file is in the hub's cache, if it is there; never asks the network."""
    repository, file = _parts(model)
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


async def fetch(model: str) -> AsyncGenerator[Progress, None]:
    """Download the file into the hub's cache; leaving early stops the download."""
    repository, file = _parts(model)
    with tempfile.TemporaryFile() as log:
        process = _downloading(repository, file, log)
        async for elapsed_s in waiting_for(process):
            yield Progress(f"fetching {file} from the hub", elapsed_s=elapsed_s)
        if process.returncode != 0:
            log.seek(0)
            raise _failure(model, log.read().decode("utf-8", "replace"))


def _downloading(repository: str, file: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _DOWNLOAD, repository, file],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )


def _parts(model: str) -> tuple[str, str]:
    owner, _, rest = model.removeprefix(_PREFIX).partition("/")
    name, _, file = rest.partition("/")
    if not file.endswith(".gguf"):
        msg = f'"{model}" does not name a file on the hub.'
        raise ModelNotFoundError(msg, hint="Write local/hf:OWNER/REPO/FILE.gguf.", model=model)
    if find_spec("huggingface_hub") is None:
        msg = "Models from the Hugging Face hub need the package huggingface_hub."
        hint = "Run: pip install huggingface_hub"
        raise ConfigurationError(msg, hint=hint, provider="local", model=model)
    return f"{owner}/{name}", file


def _failure(model: str, log: str) -> WeightsError:
    lines = [line for line in scrub(log).splitlines() if line.strip()]
    # The last line that begins a message: those after it only go on with it.
    why = next((line for line in reversed(lines) if "Error" in line.split(":")[0]), "it failed")
    msg = f"{model} could not be fetched from the hub: {why[:200]}"
    hint = "Check the name and the network; private models need HF_TOKEN."
    return WeightsError(msg, hint=hint, provider="local", model=model, retryable=True)
