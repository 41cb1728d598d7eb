"""Parts of hand-written pages that are made from the code: ``python -m tests.support.reference`` prints them."""

from __future__ import annotations

from pathlib import Path

from llm_magics.providers import built_in_providers, provider_type


def provider_rows() -> list[str]:
    """Return the rows of the table of providers in docs/how-to/providers.md."""
    rows = []
    for name in built_in_providers():
        kind = provider_type(name)
        variables = ", ".join(f"`{each}`" for each in kind.environment) or "–"
        start = f"`{kind.start}`" if kind.start else "–"
        rows.append(f"| `{name}` | {variables} | {start} | {', '.join(kind.capabilities)} |")
    return rows


def example() -> str:
    """Return the provider that CONTRIBUTING.md shows."""
    return Path(__file__).with_name("markov.py").read_text("utf-8")


if __name__ == "__main__":
    print(*provider_rows(), sep="\n")
