"""What the tests share: settings of their own, a kernel, and the engine's processes."""

from __future__ import annotations

import atexit
import gc
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from llm_magics import secrets
from llm_magics.providers import is_service
from llm_magics.providers.services import services
from llm_magics.runtime.policies.retry import CircuitBreakers, RetryPolicy
from llm_magics.runtime.session import session
from llm_magics.settings.config import config
from tests.support.examples import THOROUGH
from tests.support.kernels import Kernel

# Settings, keys and addresses that a developer's own environment may hold.
_OF_THE_USER = re.compile(
    r"^LLM_MAGICS_|(?:_API_KEY|_API_TOKEN|_BASE_URL|_ORG_ID|_PROJECT_ID)$"
    r"|^(?:AWS|AZURE|GOOGLE)_|^(?:CLOUDSDK_CONFIG|HF_TOKEN|HUGGING_FACE_HUB_TOKEN|OLLAMA_HOST)$"
)


_OF_SERVICES = {name for each in services().values() for name in each.variables}


# A shell that starts a job in the background has it ignore SIGINT, which is inherited; the
# tests that interrupt a call would then wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

# An example may take as long as it does on a busy machine, and nothing is kept between runs. CI runs
# the default suite with --hypothesis-profile=thorough, where random searches without Hypothesis are
# longer too.
for profile, count in (("here", THOROUGH // 4), ("thorough", THOROUGH)):
    hypothesis.settings.register_profile(
        profile,
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
hypothesis.settings.load_profile("here")


# Benchmarks; installations; and what checks types and documentation, without running the package.
_RUN_BY_NAME = ("benchmarks", "packaging", "platforms", "site", "typing")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Some folders run only where they are named: they take long, and some must run alone."""
    name = collection_path.name
    is_asked_for = any(f"tests/{name}" in argument for argument in config.args)
    is_folder_of_tests = collection_path.parent == Path(__file__).parent
    return True if is_folder_of_tests and name in _RUN_BY_NAME and not is_asked_for else None


# What a test needs, by the fixtures it uses; whole modules have a ``pytestmark``.
_MARKERS = {
    "kernel": pytest.mark.kernel,
    "watched_kernel": pytest.mark.kernel,
    "cluster": pytest.mark.dask,
    "fetched": pytest.mark.weights,
    "local": pytest.mark.weights,
    "minilm": pytest.mark.weights,
    "smollm2": pytest.mark.weights,
}


_SLOW = ("kernel", "browser", "dask", "weights", "network")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what their fixtures start, and the contract of providers with weights."""
    for item in items:
        for name in getattr(item, "fixturenames", ()):
            if name in _MARKERS:
                item.add_marker(_MARKERS[name])
        callspec = getattr(item, "callspec", None)
        if callspec and {"local", "huggingface-local"} & set(map(str, callspec.params.values())):
            item.add_marker(pytest.mark.weights)
    # Modules with slow tests first: no worker is alone with them at the end.
    slow = {item.path for item in items if any(map(item.get_closest_marker, _SLOW))}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Use more workers than cores (``-n auto``): many tests wait for a server, kernel or browser."""
    return 3 * (os.cpu_count() or 2) // 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute modules instead of single tests, where no other way is asked for."""
    if config.getvalue("dist") != "load":
        return None
    from tests.support.scheduling import ModuleScheduling

    config.option.loadscopereorder = False  # the order of the collection
    return ModuleScheduling(config, log)


def pytest_collection_finish() -> None:
    """
    Let the garbage collector skip what lives until the end: modules and thousands of tests.

    What tests leave behind is collected rarely: Python's own thresholds are for programs that
    allocate less.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


# These use the models in the user's cache; the others get an empty cache folder.
_NEED_WEIGHTS = ("kernel", "browser", "dask", "weights", "network", "live")


@pytest.fixture(scope="session")
def ipython_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of IPython's profile and history, in place of the user's."""
    return tmp_path_factory.mktemp("ipython")


@pytest.fixture(autouse=True)
def own_settings(
    request: pytest.FixtureRequest,
    ipython_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """No settings or keys of the user's count, none outlive the test, and the log starts empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user-config"))
    monkeypatch.setenv("IPYTHONDIR", str(ipython_folder))
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    for name in list(os.environ):
        if _OF_THE_USER.search(name) or name in _OF_SERVICES:
            monkeypatch.delenv(name)
    # It is for this process: in a kernel, other packages' warnings would stand in the output.
    monkeypatch.delenv("PYTHONWARNDEFAULTENCODING", raising=False)
    if not any(request.node.get_closest_marker(name) for name in _NEED_WEIGHTS):
        monkeypatch.setenv("LLM_MAGICS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LLM_MAGICS_VECTORS", str(tmp_path / "vectors"))
    monkeypatch.setenv("LLM_MAGICS_EVALUATIONS", str(tmp_path / "evaluations"))
    monkeypatch.setenv("LLM_MAGICS_HISTORY", "off")  # tests of the history turn it on
    monkeypatch.chdir(tmp_path)
    config.reset()
    config.reload()
    session._budget.allow(None)  # else a test with the same limit would go on with what is spent
    session.circuit_breakers = CircuitBreakers()  # else a provider that failed would be skipped
    session.runs.clear()
    session.conversations.forget()
    for name in [name for name in session.providers._created if is_service(name)]:
        del session.providers._created[name]  # else lists would name it as one in use
    for known in (secrets._secrets, secrets._short_secrets, secrets._patterns):
        known.clear()  # what an earlier test took for a key would be searched in every text
    yield
    config.reset()
    config.reload()


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is sent again after a few milliseconds, unless the service names the time."""
    backoff_s = RetryPolicy.backoff_s
    monkeypatch.setattr(
        RetryPolicy, "backoff_s", lambda policy, count: backoff_s(policy, count) / 100
    )


# For a shell: a history on disk is written at each start and end, longer than most tests take.
HISTORY_IN_MEMORY = Config({"HistoryManager": {"hist_file": ":memory:"}})


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    """A shell with the extension, asking echo."""
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance(config=HISTORY_IN_MEMORY)
    made.run_line_magic("load_ext", "llm_magics")
    config.model = "echo/echo"
    config.embedding_model = "echo/echo"
    yield made
    made.run_line_magic("unload_ext", "llm_magics")
    end_shell(made)
    InteractiveShell.clear_instance()


def end_shell(shell: InteractiveShell) -> None:
    """End a shell now. It would be reset when the process exits, with a garbage collection each."""
    shell.history_manager.end_session()
    atexit.unregister(shell.atexit_operations)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    """A real kernel in an empty folder, with the extension loaded; nobody watches it."""
    with Kernel(tmp_path) as started:
        started.run("%load_ext llm_magics")
        yield started


@pytest.fixture
def watched_kernel(tmp_path: Path) -> Iterator[Kernel]:
    """A real kernel that somebody watches, as JupyterLab does."""
    with Kernel(tmp_path, watched=True) as started:
        started.run("%load_ext llm_magics")
        yield started


def engines_of(pid: int) -> list[psutil.Process]:
    """The engine processes that the process ``pid`` has started."""
    return [
        child
        for child in psutil.Process(pid).children(recursive=True)
        if any("child.py" in word for word in child.cmdline())
    ]


def eventually(condition: Callable[[], bool], within_s: float) -> bool:
    """Whether ``condition`` comes true in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return condition()
