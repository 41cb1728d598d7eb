"""The page ``docs/reference/services.md``, made from the data file of services."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from llm_magics.providers import batches, is_service
from llm_magics.providers.batches.service import BatchService
from llm_magics.providers.services import Service, read_file, services
from llm_magics.wire.thinking import DIALECTS, EFFORT
from tests.support.docstrings import table


def service_parts() -> list[str]:
    """The tables with one row per service, and the sources of the facts."""
    files = {name: facts for name, facts in read_file().items() if is_service(name)}
    known = services()
    return [
        "# Services",
        (
            "These services are providers by name: set the key variable, and use a model as "
            "`NAME/MODEL`, for example `%%llm xai/MODEL`. See "
            "[Providers](../how-to/providers.md#services-by-name)."
        ),
        "## Keys and accounts",
        (
            "The first key variable that is set applies. The settings in the last column, below "
            "`providers.NAME`, are parts of the address; they can also be set in these variables."
        ),
        table(
            ["name", "service", "key", "parts of the address"],
            [_account_row(name, facts, known[name]) for name, facts in files.items()],
        ),
        "## What they support",
        (
            "A parameter that a service refuses is left out, with a warning; `tools` and "
            "`dimensions` raise an error instead. *Thinking* is the "
            "parameter by which `--reasoning` is sent. *Models* says whether `%llm models NAME` "
            "lists the models. *Prices* are those of the extra `prices`. *Batch jobs* are "
            "described below."
        ),
        table(
            ["name", "capabilities", "refuses", "thinking", "models", "prices", "batch jobs"],
            [_support_row(name, facts) for name, facts in files.items()],
        ),
        "## Batch jobs",
        (
            "What one job may contain, and for how many days the service stores its results; a "
            "dash means that it is not documented, or not limited. Larger work is split into several "
            "jobs. An answer in a job is not streamed, and may take a day or longer. The sources are in "
            "the modules of `llm_magics.providers.batches`."
        ),
        table(
            ["name", "requests of", "requests", "MB", "jobs at once", "days of results"],
            [_batch_row(name, kind) for name, kind in batch_services().items()],
        ),
        (
            "The list of jobs at Anthropic and OpenRouter does not contain our identifier of a "
            "job, so that a job whose creation was interrupted is recognised by its results. OpenRouter "
            "does not cancel jobs. A job of Gemini that expires (after 48 hours) or is cancelled has no "
            "results. Anthropic's jobs run at its own address only, and Vertex AI's API for jobs is not "
            "supported."
        ),
        "## Addresses",
        "The names in braces are the parts of the address in the first table.",
        table(["name", "address"], [[f"`{name}`", f"`{known[name].address}`"] for name in files]),
        "## Sources",
        (
            "No account of these services was used to check the facts. *Not checked* are those "
            "that the documentation does not state."
        ),
        "\n".join(_sources(name, facts) for name, facts in files.items()),
    ]


def batch_services() -> dict[str, type[BatchService]]:
    """The class for the batch API of each service."""
    package = "llm_magics.providers.batches"
    modules = {
        name: import_module(f"{package}.{name}") for _, name, _ in iter_modules(batches.__path__)
    }
    return {name: module.Batches for name, module in modules.items() if hasattr(module, "Batches")}


def _batch_row(name: str, kind: type[BatchService]) -> list[str]:
    limits = kind.limits
    own = kind.embedding_request is not BatchService.embedding_request
    embeds = "/embeddings" in kind.paths if kind.paths else own
    return [
        f"`{name}`",
        "chat, embeddings" if embeds else "chat",
        f"{limits.requests:,}",
        f"{limits.bytes / 1e6:,.0f}",
        f"{limits.jobs:,}" if limits.jobs else "–",
        str(limits.retention_days or "–"),
    ]


def _code(values: Sequence[str]) -> str:
    return ", ".join(f"`{value}`" for value in values) or "–"


def _account_row(name: str, facts: dict[str, Any], service: Service) -> list[str]:
    parts = [
        f"`{part.name}` ({_code(part.variables) if part.variables else 'no variable'}"
        f"{f', default `{part.default}`' if part.default else ''})"
        for part in service.parts
    ]
    keys = _code(service.key_variables)
    if service.token_provider:
        keys = f"identity `{service.token_provider}`"
    return [f"`{name}`", facts["title"], keys, ", ".join(parts) or "–"]


def _support_row(name: str, facts: dict[str, Any]) -> list[str]:
    # Users do not set stream_options, so that it is left out without a warning.
    refuses = [each for each in facts.get("refuses", []) if each != "stream_options"]
    has_list = facts.get("models", {}).get("path") != ""
    return [
        f"`{name}`",
        ", ".join(facts["capabilities"]),
        _code(refuses),
        f"`{_thinking_parameter(facts)}`" if "reasoning" in facts["capabilities"] else "–",
        "yes" if has_list else "no",
        "yes" if facts.get("price_list") else "–",
        "yes" if facts.get("batches") else "–",
    ]


def _thinking_parameter(facts: dict[str, Any]) -> str:
    if facts.get("type") == "anthropic":
        return "thinking"
    dialect = facts.get("thinking", {}).get("dialect", EFFORT.name)
    return next(iter(DIALECTS[dialect]("low")))


def _sources(name: str, facts: dict[str, Any]) -> str:
    sources = [
        f"<{each}>" if each.startswith("https://") and ": " not in each else each
        for each in facts["sources"]
    ]
    line = f"- `{name}` ({facts['checked']}): {'; '.join(sources)}."
    if unchecked := facts.get("unchecked"):
        line += f" Not checked: {'; '.join(unchecked)}."
    return line
