"""
Prompt files: ``prompts/NAME.md``, with their settings in a YAML header.

    ---
    description: sums up an article
    system: You are brief.
    model: ollama/llama3.2:3b
    parameters: {temperature: 0}
    schema: title, points list[str]
    defaults: {sentences: 3}
    ---
    Summarise in {{ sentences }} sentences:

    {{ input }}

The project's prompts take precedence over the user's. ``{{ input }}`` is the text of the cell.
``NAME@REVISION`` is its version in a commit of git.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from llm_magics._util.filesystem import atomic_write, load_yaml
from llm_magics._util.text import reason_of
from llm_magics.errors import LLMError, TemplateError, abbreviate, nearest
from llm_magics.runtime.prompts.prompt_versions import read_version, split_revision
from llm_magics.schemas import parse_schema
from llm_magics.secrets import scrub

_FOLDER = "prompts"
_HEAD = re.compile(r"\A---[ \t]*\r?\n(?:(.*?)\r?\n)?---[ \t]*(?:\r?\n|\Z)(.*)\Z", re.DOTALL)
_NAME = re.compile(r"\w[\w.-]*")
# Device names, which Windows does not treat as files, whatever their extension.
_DEVICE = re.compile(r"(?:CON|PRN|AUX|NUL|(?:COM|LPT)[0-9¹²³])(?:\..*)?", re.IGNORECASE)
_MAX_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFile:
    """
    A prompt with its settings.

    Attributes:
        text: the prompt, with ``{{ names }}`` in it.
        description: its purpose, in words.
        system, model, parameters, schema: as for `lm.ask`, which override these.
        defaults: the values of names that the notebook does not define.
        name: the name of the file, without a revision; empty if it was not loaded by a name.
        digest: a digest of the whole file, which does not depend on its line ends.
    """

    text: str
    description: str = ""
    system: str | None = None
    model: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    schema: Any = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    name: str = field(default="", compare=False)
    digest: str = field(default="", compare=False)


_KINDS: dict[str, tuple[type, ...]] = {
    "description": (str,),
    "system": (str,),
    "model": (str,),
    "parameters": (dict,),
    "schema": (str, dict),
    "defaults": (dict,),
}


_EXAMPLES = {
    "description": "description: what it is for",
    "system": "system: You are brief.",
    "model": "model: local/smollm2-135m",
    "parameters": "parameters: {temperature: 0}",
    "schema": "schema: name, age int",
    "defaults": "defaults: {sentences: 3}",
}


def folders() -> Iterator[Path]:
    """Yield the folders of prompts: ``prompts`` here and in folders above, then the user's own."""
    here = Path.cwd()
    yield from (folder / _FOLDER for folder in (here, *here.parents))
    yield _users_folder()


def names() -> dict[str, Path]:
    """Return all prompts by name; of several with the same name, the nearest."""
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob("*.md")):
            found.setdefault(path.stem, path)
    return found


def load(name: str) -> PromptFile:
    """
    Return the prompt called ``name``; ``NAME@REVISION`` is its version in a commit of git.

    Raises:
        TemplateError: it does not exist, or its file is invalid.
    """
    known = names()
    name = name.removeprefix(f"{_FOLDER}/").removesuffix(".md")
    if name not in known:
        bare, revision = split_revision(name)
        if revision is not None:
            return _load_version(bare.removesuffix(".md"), revision, known)
        msg = f'No template is named "{name}".'
        hint = (
            f"{nearest(name, known)} Templates are files prompts/NAME.md; --save NAME creates one."
        )
        raise TemplateError(msg, hint=hint)
    return replace(read(known[name]), name=name)


def _load_version(name: str, revision: str, known: Mapping[str, Path]) -> PromptFile:
    """Return a version of a prompt, which may not exist any more."""
    if not _NAME.fullmatch(name):
        msg = f'"{name}" is not a valid template name.'
        raise TemplateError(msg, hint="Use NAME@REVISION: brief@HEAD~3")
    paths = [known[name]] if name in known else [each / f"{name}.md" for each in folders()]
    path, data = read_version(paths, revision, _MAX_BYTES)
    where = f"{path}@{revision}"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"Could not read {where}: {reason_of(error)}."
        raise TemplateError(msg, hint="Use a revision in which it is UTF-8 text.") from None
    return replace(_parse(text, where), name=name)


def read(path: Path) -> PromptFile:
    """
    Return the prompt in the file ``path``.

    Raises:
        TemplateError: it is not a file in its folder, too large, or invalid.
    """
    try:
        _refuse_links(path)
        if path.stat().st_size > _MAX_BYTES:
            msg = f"{path} has more than {_MAX_BYTES:,} bytes."
            raise TemplateError(msg, hint="Insert long texts with variables: {{ text }}.")
        text = path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        msg = f"Could not read {path}: {reason_of(error)}."
        raise TemplateError(msg, hint="Save it as UTF-8 text.") from None
    return _parse(text, path)


def _parse(text: str, path: Path | str) -> PromptFile:
    """Return the prompt in ``text``, which is in the file ``path``."""
    text = text.replace("\r\n", "\n")
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    head = _HEAD.match(text)
    if head is None and re.match(r"---[ \t]*\r?\n\w+:", text):
        msg = f"The front matter of {path} is not closed."
        raise TemplateError(msg, hint="Add a line with --- before the prompt.")
    if head is None:
        return PromptFile(text=text.strip("\n"), digest=digest)
    fields = _check_head(path, _parse_head(path, head[1] or ""))
    return PromptFile(text=head[2].strip("\n"), digest=digest, **fields)


def _refuse_links(path: Path) -> None:
    """Raise `TemplateError` for a link out of the folder of prompts, or out of the project."""
    real, folder = path.resolve(), path.parent.resolve()
    is_users = path.parent == _users_folder()
    if not real.is_relative_to(folder):
        msg = f"{path} is a symbolic link to {real}, outside its folder."
        raise TemplateError(msg, hint="Copy the file into the folder.")
    if not is_users and not folder.is_relative_to(path.parent.parent.resolve()):
        msg = f"{path.parent} is a symbolic link to {folder}, outside its project."
        raise TemplateError(msg, hint="Copy the folder into the project.")
    if path.exists() and not real.is_file():
        msg = f"{path} is not a file."
        raise TemplateError(msg, hint="Save the prompt as a text file.")


def _users_folder() -> Path:
    return user_config_path("llm_magics", appauthor=False) / _FOLDER


def _parse_head(path: Path | str, head: str) -> Any:
    try:
        return load_yaml(head) or {}
    except ValueError as error:
        msg = f"The front matter of {path} is not valid YAML: {error}"
        raise TemplateError(msg, hint="Put values that contain a colon in quotes.") from None


def _check_head(path: Path | str, fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict):
        msg = f"The front matter of {path} must be a mapping, got {type(fields).__name__}."
        raise TemplateError(msg, hint="Example:  system: You are brief.")
    for name, value in fields.items():
        if name not in _KINDS:
            msg = f'{path}: unknown field "{name}" in the front matter.'
            raise TemplateError(msg, hint=nearest(str(name), _KINDS))
        if not isinstance(value, _KINDS[name]):
            msg = f"{path}: invalid value for {name}: {abbreviate(value)}."
            raise TemplateError(msg, hint=f"Example:  {_EXAMPLES[name]}")
        if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
            msg = f"{path}: the names in {name} must be strings."
            raise TemplateError(msg, hint=f"Example:  {_EXAMPLES[name]}")
    try:
        if "schema" in fields:
            parse_schema(fields["schema"])
    except LLMError as error:
        raise TemplateError(f"{path}: {error}", hint=error.hint) from None
    return fields


def save(name: str, prompt: PromptFile, *, overwrite: bool = False) -> Path:
    """
    Save ``prompt`` as ``prompts/NAME.md`` in the notebook's folder, and return its path.

    Raises:
        TemplateError: ``name`` is invalid, or is used by another prompt and ``overwrite`` is false.
    """
    if not _NAME.fullmatch(name) or _DEVICE.fullmatch(name):
        msg = f'"{name}" is not a valid template name.'
        raise TemplateError(msg, hint="Use letters, digits, _ and -: --save summary")
    path = Path.cwd() / _FOLDER / f"{name}.md"
    text = scrub(_format_file(prompt))
    try:
        _refuse_links(path)
        is_another = path.exists() and path.read_bytes() != text.encode()
        if is_another and not overwrite:
            msg = f"The template {path} already exists."
            hint = "Use another name, or add --yes to overwrite it."
            raise TemplateError(msg, hint=hint)
        atomic_write(path, text)
    except OSError as error:
        msg = f"Could not write {path}: {reason_of(error)}."
        raise TemplateError(msg, hint="Use another name or another folder.") from None
    return path


def _format_file(prompt: PromptFile) -> str:
    import yaml

    fields = {name: value for name, value in asdict(prompt).items() if value and name in _KINDS}
    if not fields:
        return f"{prompt.text}\n"
    head = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=99)
    return f"---\n{head}---\n{prompt.text}\n"
