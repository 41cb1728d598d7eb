"""README, pages, notebooks and CI agree with the code."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
import yaml
from IPython.core.interactiveshell import InteractiveShell

import llm_magics
from llm_magics.evaluations.gate.specification import load_gate
from llm_magics.notebook.commands import COMMANDS, USAGE
from llm_magics.notebook.parsers import (
    bench_parser,
    compare_parser,
    embed_parser,
    gate_parser,
    llm_cell_parser,
    split_words,
)
from llm_magics.providers import built_in_providers
from llm_magics.providers.profiles import profiles
from llm_magics.runtime.session import Session
from llm_magics.secrets import scrub
from llm_magics.settings.config import Config
from llm_magics.settings.schema import Settings
from tests.support import reference
from tests.support.hosted import FakeColab
from tests.support.markdown_pages import code_blocks, code_spans, links, name_of, pages, sentences

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Pages that are written by hand, and have examples.
WRITTEN_BY_HAND = ("docs", "how-to", "explanation")
PAGES = [README, *(path for path in pages() if path.parts[-2] in WRITTEN_BY_HAND)]


SECTIONS = [
    "Install and start",
    "Use it",
    "What it does",
    "Notebooks",
    "Compared with other tools",
    "Documentation",
    "Development",
    "Licence",
]


def test_the_readme_is_short() -> None:
    """At most 900 words, no sentence over 30, and 18 on average."""
    assert len(README.read_text("utf-8").split()) <= 900
    lengths = [len(sentence.split()) for sentence in sentences(README)]
    assert max(lengths) <= 30
    assert sum(lengths) / len(lengths) <= 18


def test_the_readme_has_its_sections_in_order() -> None:
    """First a sentence and a picture, then what a newcomer needs, in that order."""
    text = README.read_text("utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    _, sentence, picture, *_ = text.split("\n\n")
    assert sentence.endswith(".")
    assert picture.startswith("![")
    assert text.index("git clone") < text.index("pip install") < text.index("%load_ext llm_magics")
    comparison = text[text.index("## Compared with") : text.index("## Documentation")]
    assert len(re.findall(r"^\| \w.*\|$", comparison, re.MULTILINE)) == 8


@pytest.mark.parametrize("topic", ["own-server", "security", "dataframes", "compare-and-bench"])
def test_the_readme_links_to_what_newcomers_look_for(topic: str) -> None:
    """An own server, where keys go, columns, comparisons."""
    assert f"docs/how-to/{topic}.md" in links(README)


def test_the_rows_of_the_readmes_comparison_are_those_of_the_page() -> None:
    """The page has each of the README's answers, in a longer table."""
    page = (ROOT / "docs" / "explanation" / "comparison.md").read_text("utf-8")
    for row in comparison_rows(README.read_text("utf-8")):
        assert row in comparison_rows(page)


def comparison_rows(text: str) -> list[list[str]]:
    """Return the cells of the rows with an answer for each project, without footnotes."""
    rows = [[cell.strip(" ³") for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return [row for row in rows if len(row) == 6 and row[0].strip("-")]


def test_ci_runs_the_commands_of_the_readme() -> None:
    """Each command line of the README stands in the CI script, but for the clone and the browser."""
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    script = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    for block in code_blocks(README, "bash"):
        for command in block.strip().splitlines():
            for part in command.split(" && "):
                if not part.startswith(("jupyter lab", "git clone", "cd ")):
                    assert (
                        part.replace("pip install", "pip install -q") in script or part in script
                    )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_python_of_a_page_is_python(page: Path) -> None:
    """Cells without magics can be parsed, and every lm.name on the page exists."""
    for block in code_blocks(page, "python"):
        if "%" not in block:
            ast.parse(block)
    for name in re.findall(r"\blm\.(\w+)", page.read_text("utf-8")):
        assert hasattr(llm_magics, name) or find_spec(f"llm_magics.{name}"), name


@pytest.mark.parametrize(
    "page", [page for page in PAGES if code_blocks(page, "yaml")], ids=name_of
)
def test_the_settings_on_a_page_are_valid(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each example file is accepted, and every provider in it can be created."""
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "GROQ_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    for example in code_blocks(page, "yaml"):
        settings = Settings.model_validate(yaml.safe_load(example))
        (tmp_path / "llm_magics.yaml").write_text(example)
        own = Session(Config(tmp_path, {}))
        for name in settings.providers:
            assert own.provider(name).name == name


def test_the_page_of_servers_names_every_profile() -> None:
    """All profiles of servers that users run themselves."""
    spans = code_spans(ROOT / "docs" / "how-to" / "own-server.md")
    own = {name for name, profile in profiles().items() if not profile.hosts}
    assert own - {"other"} <= set(spans)


def test_the_page_of_providers_has_each_with_its_capabilities() -> None:
    """Each has a row in the table, made from the code, and a section."""
    text = (ROOT / "docs" / "how-to" / "providers.md").read_text("utf-8")
    rows = re.findall(r"^\| `.*\|$", text, re.MULTILINE)
    assert rows == reference.provider_rows()
    for name in built_in_providers():
        assert f"\n## {name}\n" in text


def test_the_readme_links_to_every_notebook() -> None:
    """With a link that leads there."""
    assert {f"notebooks/{path.name}" for path in NOTEBOOKS} <= set(links(README))


def lines_of_magics() -> list[tuple[str, str]]:
    """Every line of a magic on the pages and in the notebooks, and where it stands."""
    texts = [(name_of(page), block) for page in PAGES for block in code_blocks(page, "python")]
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        texts += [(path.stem, cell.source) for cell in cells if cell.cell_type == "code"]
        spans = [re.findall(r"`(%[^`]+)`", c.source) for c in cells if c.cell_type == "markdown"]
        texts += [(path.stem, span) for found in spans for span in found]
    texts += [
        (name_of(page), span)
        for page in PAGES
        for span in code_spans(page)
        if span.startswith("%")
    ]
    return [
        (place, re.sub(r"^\w+ = (?=%)", "", line.strip()))
        for place, text in texts
        for line in text.splitlines()
        if "%llm" in line or "%embed" in line
    ]


def flags_in(usage: str) -> set[str]:
    """The flags that a subcommand's usage names."""
    return set(re.findall(r"--?[a-z][a-z-]*", usage))


@pytest.mark.parametrize(("place", "line"), sorted(set(lines_of_magics())))
def test_every_line_of_a_magic_is_one(place: str, line: str) -> None:
    """Subcommands that exist, with flags that they have."""
    magic, _, rest = line.partition(" ")
    if magic.endswith("?") or not rest:
        assert magic.rstrip("?") in ("%llm", "%%llm", "%embed", "%%embed")
    elif magic == "%%llm":
        llm_cell_parser().parse(rest.replace("…", ""))
    elif magic in ("%embed", "%%embed"):
        given = [word for word in split_words(rest) if word.startswith("-")]
        assert set(given) <= set(embed_parser(magic).flags)
    else:
        assert magic == "%llm"
        name, *words = split_words(rest.replace("…", ""))
        assert name in COMMANDS
        flags = {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)}
        parsers = {"bench": bench_parser, "compare": compare_parser, "gate": gate_parser}
        known = set(parsers[name]().flags) if name in parsers else flags_in(USAGE[name])
        assert flags <= known


def test_the_changelog_knows_this_version() -> None:
    """The newest heading is the version, or what is to come after it."""
    headings = re.findall(
        r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert headings
    assert {"Unreleased", llm_magics.__version__} & set(headings[:2])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_executed_and_clean(path: Path) -> None:
    """Run from top to bottom; no unexpected error, path, key, time stamp or trace of progress."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    text = path.read_text("utf-8")
    assert scrub(text) == text
    assert not re.search(r"(?<![\w.:/~-])/(?:root|home|Users|tmp|work|var)/", text)
    assert not re.search(r"\b[A-Z]:\\\\", text)
    for cell in code:
        assert "execution" not in cell.metadata
        for output in cell.outputs:
            assert output.output_type != "error" or "raises-exception" in cell.metadata.tags
            assert "<progress" not in str(output)


def test_binder_builds_what_the_notebook_needs() -> None:
    """The package with the embedded engine, and weights fetched by a script that stops at errors."""
    folder = ROOT / "binder"
    assert (folder / "requirements.txt").read_text(
        "utf-8"
    ).strip() == "-e .[local,plots,bench,dask]"
    assert (folder / "runtime.txt").read_text("utf-8").startswith("python-3.1")
    script = folder / "postBuild"
    assert script.stat().st_mode & 0o111
    assert "set -e" in script.read_text("utf-8")
    (python,) = re.findall(r"<<'PYTHON'\n(.*?)\nPYTHON", script.read_text("utf-8"), re.DOTALL)
    ast.parse(python)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_extras_on_a_page_exist(page: Path) -> None:
    """Those that a command installs, and those that the text names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    text = page.read_text("utf-8")
    named = set(re.findall(r"extra `(\w+)`", text))
    for group in re.findall(r'pip install -e "\.\[([\w,]+)\]"', text):
        named |= set(group.split(","))
    assert named <= set(project["optional-dependencies"])


class _Recorded:
    """The commands that a cell runs, in place of pip and the system."""

    def __init__(self, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commands: list[str] = []
        shell.register_magic_function(self.commands.append, "line", "pip")
        monkeypatch.setattr(shell, "system", self.commands.append)


def files_read_by(code: str, folder: Path) -> set[str]:
    """The files beside a notebook that its code names, and those that its gates read."""
    read = set(re.findall(r'"((?:data|evals)/[\w.-]+)"', code))
    read |= set(re.findall(r"^%llm replay (data/[\w.-]+)", code, re.MULTILINE))
    for name in re.findall(r"^%llm gate (\S+)", code, re.MULTILINE):
        gate = load_gate(folder / name)
        files = (gate.path, gate.data, gate.baseline, gate.recording)
        read |= {each.resolve().relative_to(folder).as_posix() for each in files}
    return read


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cell_installs_in_colab_only(
    path: Path, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package, and the data that the notebook reads, from addresses that lead to its files."""
    notebook = nbformat.read(path, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    recorded = _Recorded(shell, monkeypatch)
    shell.run_cell(first.source).raise_error()
    assert recorded.commands == first.outputs == []
    FakeColab({}).install(monkeypatch)
    shell.run_cell(first.source).raise_error()
    (requirement,) = re.findall(
        r'^install -q "jupyter-llm-magics\[(.+)\] @ (.+)"$', recorded.commands[0]
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(requirement[0].split(",")) <= set(project["optional-dependencies"])
    assert requirement[1] == f"git+{project['urls']['Source']}"
    code = "\n".join(cell.source for cell in notebook.cells)
    read = files_read_by(code, path.parent)
    raw = project["urls"]["Source"].replace("github.com", "raw.githubusercontent.com")
    fetched = {command.split(f"{raw}/HEAD/notebooks/")[1] for command in recorded.commands[1:]}
    assert read == fetched
    assert all((path.parent / name).exists() for name in fetched)


@pytest.mark.parametrize("path", [README, *NOTEBOOKS], ids=lambda path: path.stem)
def test_a_badge_opens_the_notebook_in_colab(path: Path) -> None:
    """The picture is a file of the project, so that pages load nothing from another host."""
    source = path.read_text("utf-8") if path == README else nbformat.read(path, 4).cells[0].source
    ((picture, address),) = re.findall(r"\[!\[Open in Colab\]\((.+?)\)\]\((.+?)\)", source)
    assert (path.parent / picture).exists()
    host, _, name = address.partition("/OWNER/jupyter-llm-magics/blob/HEAD/")
    assert host == "https://colab.research.google.com/github"
    assert (ROOT / name).exists()
    assert path in (README, ROOT / name)
