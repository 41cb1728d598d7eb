"""What Windows needs, as far as it can be checked elsewhere."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import llm_magics
from llm_magics.errors import TemplateError
from llm_magics.providers.local.weights import STARTERS
from llm_magics.runtime.prompts.prompt_files import PromptFile, save
from llm_magics.runtime.storage.vector_store import VectorStore, clear_store, folder_name
from tests.support.hermetic import is_name_on_windows, watched
from tests.support.prepared_python import run_prepared

PACKAGE = Path(llm_magics.__file__).parent
DEVICES = ("CON", "nul", "Aux.v2", "com1", "LPT¹", "prn.md")

# Third-party packages come first: on Windows they have builds of their own.
PROGRAM = """
import asyncio, importlib.util, json, sys, warnings
sys.modules["rfc3987_syntax"] = None  # jsonschema does without it, in a second less
import anywidget, dask.dataframe, distributed, httpx, IPython, ipywidgets, jinja2, jsonschema
import keyring, mammoth, markdown_it, matplotlib.pyplot, mcp.client, pandas, platformdirs, pydantic, pygments
import pyarrow, pypdfium2, scipy.stats, sqlite3, subprocess, xllamacpp, yaml
for name in ("nest_asyncio", "nest_asyncio2"):  # by the version of Python
    if importlib.util.find_spec(name):
        importlib.import_module(name)
from tests.support import windows

assert not any(name.partition(".")[0] == "llm_magics" for name in sys.modules)
windows.pretend()
warnings.simplefilter("error")
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)

import llm_magics as lm
from llm_magics.runtime.prompts.prompt_files import PromptFile, load, save
from tests.support import servers, serving

lm.config.cache = True
with servers.servers(one=serving.Says(serving.chat_stream("well"))):
    answers = [lm.ask("How are you?", model="one/m").text for _ in range(2)]
vectors = [lm.embed(["a", "b"], model="echo/echo").shape for _ in range(2)]
save("brief", PromptFile(text="Be brief."))
print(json.dumps([answers, vectors, load("brief").text, len(lm.runs())]))
"""


def sources() -> Iterator[Path]:
    """The modules of the package."""
    return PACKAGE.rglob("*.py")


def module_names() -> Iterator[str]:
    """All that can be imported, but for programs and what needs Torch."""
    for path in sorted(sources()):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[-1] not in ("__main__", "child") and "huggingface" not in parts:
            yield ".".join(parts).removesuffix(".__init__")


def test_without_what_only_posix_has() -> None:
    """Every module is imported; a chat, vectors, caches and prompt files work."""
    done = run_prepared(PROGRAM, json.dumps(list(module_names())), has_pandas=True)
    answers, vectors, prompt, runs = json.loads(done.stdout)
    assert (answers, prompt, runs) == (["well", "well"], "Be brief.", 4)
    assert vectors[0] == vectors[1]


def unnamed_encodings(source: str) -> list[int]:
    """The lines of ``source`` that open a text file, or a process's pipes, without an encoding."""
    lines: list[int] = []
    if not re.search(r"open\(|_text\(|TemporaryFile\(|text=|universal_newlines=", source):
        return lines
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        constants = [each.value for each in node.args if isinstance(each, ast.Constant)]
        keywords = {each.arg: each.value for each in node.keywords}
        mode = keywords.get("mode")
        modes = [*constants, mode.value] if isinstance(mode, ast.Constant) else constants
        if name in ("read_text", "write_text"):
            is_text = len(node.args) <= (name == "write_text")
        elif name == "open" and isinstance(node.func, ast.Attribute):
            # Of a path; Pillow and others have an ``open`` too, which takes no such mode.
            is_text = any(isinstance(each, str) and set(each) <= set("rwax+t") for each in modes)
        elif name in ("open", "fdopen"):
            is_text = not any(isinstance(each, str) and "b" in each for each in modes)
        elif name in ("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile"):
            is_text = any(each in ("w", "r", "w+", "r+") for each in modes)
        else:
            is_text = "text" in keywords or "universal_newlines" in keywords
            is_text = is_text and name in ("run", "Popen", "check_output", "call", "check_call")
        if is_text and "encoding" not in keywords:
            lines.append(node.lineno)
    return lines


def test_every_text_file_is_opened_with_an_encoding() -> None:
    """The one of the system is another on Windows."""
    found = {
        str(path.relative_to(PACKAGE)): lines
        for path in sources()
        if (lines := unnamed_encodings(path.read_text("utf-8")))
    }
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "path.read_text()",
        "path.write_text('a')",
        "open('a')",
        "path.open('w')",
        "os.fdopen(3, 'w')",
        "tempfile.TemporaryFile('w+')",
        "subprocess.run(['a'], text=True)",
    ],
)
def test_an_encoding_that_is_not_named_is_found(source: str) -> None:
    """In each of the ways to open a text file."""
    assert unnamed_encodings(source) == [1]


def test_files_that_llm_magics_changes_while_they_are_open_are_noticed(tmp_path: Path) -> None:
    """The fixture that watches every test sees a removal, a replacement and a map."""
    program = compile(
        "import mmap, os\n"
        "with path.open('r+b') as file: other.replace(path)\n"
        "with path.open('r+b') as file: mapped = mmap.mmap(file.fileno(), 0)\n"
        "path.unlink(); mapped.close()\n",
        "llm_magics/example.py",
        "exec",
    )
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"1")
    other.write_bytes(b"2")
    with watched() as reached:
        exec(program, {"__name__": "llm_magics.example", "path": path, "other": other})
    assert len(reached) == 2
    with watched() as reached:
        exec(compile("path.write_bytes(b'')", "e", "exec"), {"__name__": "e", "path": path})
        path.unlink()
    assert not reached


def test_clearing_leaves_a_file_that_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses to remove it; the others go, and no error comes."""
    store = VectorStore(tmp_path, {"identity": "a"})
    store.put(np.ones((1, 2), np.uint64), np.ones((1, 8), np.float32))
    (keys,) = tmp_path.rglob("*.keys")
    unlink = Path.unlink

    def refuse(path: Path, **given: bool) -> None:
        if path == keys:
            raise PermissionError(13, "used by another process")
        unlink(path, **given)

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(sys, "platform", "win32")
    assert clear_store(tmp_path) > 0
    assert [path.suffix for path in tmp_path.rglob("*.*")] == [".keys"]


@pytest.mark.parametrize("name", DEVICES)
def test_no_prompt_is_named_as_a_device(name: str) -> None:
    """Windows takes none of these names for a file."""
    assert not is_name_on_windows(name)
    with pytest.raises(TemplateError):
        save(name, PromptFile(text="a"))
    assert not Path("prompts").exists()


def test_names_of_files_are_those_that_windows_takes() -> None:
    """Whatever the model is called, in the store of vectors; the models that come with us."""
    for label in ("ollama/a:b", "con", 'x?<>|"*', "..", "ö\n"):
        assert is_name_on_windows(folder_name(label))
    assert all(is_name_on_windows(f"{name}.gguf") for name in STARTERS)
    assert save("Console.v2", PromptFile(text="a")).is_file()


def test_the_watch_is_on(tmp_path: Path) -> None:
    """A file outside the folder of a test is noticed, and a host that is not this machine."""
    import socket

    with watched() as reached:
        with pytest.raises(OSError, match="unreachable"):
            socket.create_connection(("192.0.2.1", 9))
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo("example.com", 80)
        os.close(os.open(PACKAGE / "__init__.py", os.O_RDWR))
    assert len(reached) == 3
