"""The recorded traffic of real services, where it lies beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "wire"

needs_recordings = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the recorded traffic is not beside the checkout"
)


def records(*names: str) -> list[dict[str, Any]]:
    """Every recorded answer in the files of these names; none where there are no files."""
    found = []
    for name in names:
        file = FOLDER / f"{name}.jsonl"
        if file.is_file():
            found += [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return found


def events(body: str) -> list[dict[str, Any]]:
    """The JSON events of a recorded stream, by a plain reading."""
    lines = body.replace("\r\n", "\n").split("\n")
    data = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
    return [json.loads(event) for event in data if event and event != "[DONE]"]
