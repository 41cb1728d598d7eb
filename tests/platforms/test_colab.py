"""
Hosted notebooks: the package installs into what Colab and Kaggle have, and works there.

``colab-2026-08.txt`` has the versions of Colab's image. Kaggle's image is built on it, and has a
newer ipywidgets (kaggle_requirements.txt of Kaggle/docker-python, 12 August 2026).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from tests.packaging.environments import ROOT, checkout, interpreters, made, ran, uv

CONSTRAINTS = Path(__file__).with_name("colab-2026-08.txt")
# They are large, or have large requirements, and this package does not depend on them.
LEFT_OUT = {
    "community",
    "datasets",
    "jupyter-leaflet",
    "matplotlib-venn",
    "pandas-gbq",
    "polars",
    "polars-runtime-32",
    "sentence-transformers",
    "transformers",
}
KAGGLE = {"ipywidgets": "8.1.5", "widgetsnbextension": ""}
# That of the images, or else the one that runs these tests.
VERSION = "3.13" if "3.13" in interpreters() else "{}.{}".format(*sys.version_info[:2])
TOOLS = ("hypothesis", "keyring", "psutil", "pytest")
RUNNER = ("pytest-timeout", "pytest-xdist")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0[123]-*.ipynb"))
# They start kernels, or use what differs between versions of IPython and ipywidgets.
KERNEL_TESTS = (
    "tests/notebook/test_kernel.py",
    "tests/notebook/test_kernel_progress.py",
    "tests/notebook/test_magics.py::test_tab_knows_the_models_that_were_listed",
    "tests/notebook/test_nested_loop.py",
    "tests/notebook/test_picker.py",
    "tests/notebook/test_unattended.py",
    "tests/settings/test_hosted_secrets.py",
)

pytestmark = [pytest.mark.network, pytest.mark.kernel, pytest.mark.weights]


@dataclass(frozen=True)
class Environment:
    """An environment of a platform; ``before`` is what it has without this package."""

    python: Path
    before: dict[str, str]

    def packages(self) -> dict[str, str]:
        """The versions of its packages, by name."""
        list_all = "from importlib.metadata import distributions as d; "
        list_all += "print(*(f'{x.name}=={x.version}' for x in d()), sep='\\n')"
        return _versions(ran([self.python, "-c", list_all], self.python.parent))


def _versions(lines: str) -> dict[str, str]:
    pairs = (line.split("==") for line in lines.splitlines() if line[:1] not in ("", "#"))
    return {re.sub(r"[._]", "-", name).lower(): version for name, version in pairs}


def of_platform(changes: dict[str, str]) -> dict[str, str]:
    """What the platform has: Colab's packages with the ``changes``; no version: the fitting one."""
    found = {**_versions(CONSTRAINTS.read_text("utf-8")), **changes}
    return {name: version for name, version in found.items() if name not in LEFT_OUT}


def install_line(path: Path) -> str:
    """The requirement that the first code cell of a notebook installs."""
    notebook = nbformat.read(path, as_version=4)
    first = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    (found,) = re.findall(r'%pip install -q "([^"]+)"', first)
    return str(found)


@pytest.fixture(scope="session")
def create(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, str]], Environment]:
    """Create the environment of a platform with what the first cell of a notebook installs."""
    folder = tmp_path_factory.mktemp("platforms")
    uv("build", "--wheel", "--out-dir", folder)
    (wheel,) = folder.glob("*.whl")
    extras = install_line(NOTEBOOKS[0]).partition(" @ ")[0]

    def created(changes: dict[str, str]) -> Environment:
        pins = [f"{name}=={each}" if each else name for name, each in of_platform(changes).items()]
        own = folder / ("kaggle" if changes else "colab")
        python = made(own, *pins, python=interpreters().get(VERSION, Path(sys.executable)))
        before = Environment(python, {}).packages()
        # As in a notebook, where pip knows no constraints.
        uv("pip", "install", "--python", python, f"{extras} @ {wheel.as_uri()}")
        return Environment(python, before)

    return created


@pytest.fixture(scope="session", params=[VERSION], ids=[f"python{VERSION}"])
def colab(create: Callable[[dict[str, str]], Environment]) -> Environment:
    """Colab's versions of what this package and the notebook stack need."""
    return create({})


@pytest.fixture(scope="session", params=[VERSION], ids=[f"python{VERSION}"])
def kaggle(create: Callable[[dict[str, str]], Environment]) -> Environment:
    """Colab's versions, with Kaggle's ipywidgets."""
    return create(KAGGLE)


def check_nothing_was_replaced(environment: Environment, changes: dict[str, str]) -> None:
    """All packages that the platform has are as they were, with the platform's versions."""
    after = environment.packages()
    assert after == {**after, **environment.before}
    pinned = {name: version for name, version in of_platform(changes).items() if version}
    assert after == {**after, **pinned}
    assert "jupyter-llm-magics" in after


def test_an_install_in_colab_replaces_nothing(colab: Environment) -> None:
    """Another IPython would break the running session."""
    check_nothing_was_replaced(colab, {})


def test_an_install_in_kaggle_replaces_nothing(kaggle: Environment) -> None:
    """With the extras that the notebooks need, as in Colab."""
    check_nothing_was_replaced(kaggle, KAGGLE)


def run_tests(environment: Environment, folder: Path, *names: str) -> None:
    """Run the tests called ``names`` with the installed package instead of the sources."""
    pins = ("--constraint", CONSTRAINTS) if environment.before["ipywidgets"] == "7.7.1" else ()
    uv("pip", "install", "--python", environment.python, *pins, *TOOLS, *RUNNER)
    copy = checkout(folder, "tests", "pyproject.toml", "notebooks", "README.md")
    options = ["-n", "2", "-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default"]
    # Neither papermill nor what an engine does when its kernel is killed depends on the platform.
    options += ["--timeout=120", "-k", "not (papermill or killed)"]
    command = [environment.python, "-m", "pytest", *options, *names]
    assert " passed" in ran(command, copy)
    after = environment.packages()
    assert after == {**after, **environment.before}


def test_the_tests_with_kernels_pass_in_colab(colab: Environment, tmp_path: Path) -> None:
    """Cells, streams, interrupts, completion, the picker and secrets."""
    run_tests(colab, tmp_path, *KERNEL_TESTS)


def test_the_picker_works_in_kaggle(kaggle: Environment, tmp_path: Path) -> None:
    """It is what depends on the version of ipywidgets."""
    run_tests(kaggle, tmp_path, "tests/notebook/test_picker.py")


def test_the_first_notebooks_run_in_colab(colab: Environment, tmp_path: Path) -> None:
    """Without an error; outputs contain times and are not compared."""
    folder = checkout(tmp_path, "notebooks") / "notebooks"
    jupyter = colab.python.with_name("jupyter")
    running = [
        subprocess.Popen(
            [jupyter, "execute", path.name],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for path in NOTEBOOKS
    ]
    for path, process in zip(NOTEBOOKS, running, strict=True):
        output, _ = process.communicate()
        assert process.returncode == 0, f"{path.name}: {output[-3000:]}"
