"""The page ``docs/reference/services.md``, made from the data file of services."""

from __future__ import annotations

from typing import Any

from llm_magics.providers.services import Service, read_file, services
from tests.support.docstrings import table


def service_parts() -> list[str]:
    """Two tables with one row per service, and the facts that could not be checked."""
    files = {name: facts for name, facts in read_file().items() if name != "openai"}
    known = services()
    return [
        "# Services",
        (
            "These services are providers by name: set the key variable, and use a model as "
            "`NAME/MODEL`, for example `%%llm xai/MODEL`. See "
            "[Providers](../how-to/providers.md#services-by-name)."
        ),
        "## Keys and addresses",
        (
            "The first key variable that is set applies. Parts of an address in braces are the "
            "settings in the last column, below `providers.NAME`, or the variables there."
        ),
        table(
            ["name", "service", "key", "address", "parts of the address"],
            [_address_row(name, facts, known[name]) for name, facts in files.items()],
        ),
        "## What they support",
        (
            "A parameter that a service refuses is left out, with a warning; `tools` and "
            "`dimensions` raise an error instead. *Thinking* is the "
            "parameter by which `--reasoning` is sent. *Models* says whether `%llm models NAME` "
            "lists the models. *Prices* are those of the extra `prices`."
        ),
        table(
            ["name", "capabilities", "refuses", "thinking", "models", "prices"],
            [_support_row(name, facts) for name, facts in files.items()],
        ),
        "## Sources",
        (
            "No account of these services was used to check the facts. The last column has those "
            "that the documentation does not state."
        ),
        table(
            ["name", "sources", "checked", "not checked"],
            [_source_row(name, facts) for name, facts in files.items()],
        ),
    ]


def _code(values: list[str]) -> str:
    return ", ".join(f"`{value}`" for value in values) or "–"


def _address_row(name: str, facts: dict[str, Any], service: Service) -> list[str]:
    parts = [
        f"`{part.name}` ({_code(list(part.variables)) if part.variables else 'no variable'}"
        f"{f', default `{part.default}`' if part.default else ''})"
        for part in service.parts
    ]
    keys = _code(list(service.key_variables))
    if service.token_provider:
        keys = f"identity `{service.token_provider}`"
    return [f"`{name}`", facts["title"], keys, f"`{service.address}`", ", ".join(parts) or "–"]


def _support_row(name: str, facts: dict[str, Any]) -> list[str]:
    thinking = facts.get("thinking", {}).get("dialect", "reasoning_effort")
    has_list = facts.get("models", {}).get("path") != ""
    has_thinking = "reasoning" in facts["capabilities"] and facts.get("type") != "anthropic"
    return [
        f"`{name}`",
        ", ".join(facts["capabilities"]),
        _code(facts.get("refuses", [])),
        f"`{thinking}`" if has_thinking else "–",
        "yes" if has_list else "no",
        "yes" if facts.get("price_list") else "–",
    ]


def _source_row(name: str, facts: dict[str, Any]) -> list[str]:
    sources = [
        f"<{each}>" if each.startswith("https://") and ": " not in each else each
        for each in facts["sources"]
    ]
    return [
        f"`{name}`",
        "; ".join(sources),
        facts["checked"],
        "; ".join(facts.get("unchecked", [])) or "–",
    ]
