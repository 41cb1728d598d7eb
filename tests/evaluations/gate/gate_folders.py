"""Folders with gate files, baselines and recordings, written without any model."""

from __future__ import annotations

import json
from pathlib import Path

from llm_magics.evaluations.gate.answers import AnswerFile, ItemAnswers
from llm_magics.evaluations.gate.requests import build_requests
from llm_magics.evaluations.gate.specification import load_gate

RULES = """\
data: {name}.jsonl
prompt: "{{{{ text }}}}"
models: {models}
scores: {{exact: {{drop: {drop}}}}}
{more}
"""


def write_gate(
    folder: Path,
    name: str = "support",
    *,
    items: int = 60,
    drop: float = 0.3,
    models: str = "echo/echo",
    more: str = "",
) -> Path:
    """Write a gate file and its data; the model echo answers all items rightly."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": f"q{each:03}", "text": f"{each}", "expected": f"{each}"} for each in range(items)
    ]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    path = folder / f"{name}.yaml"
    rules = RULES.format(name=name, drop=drop, more=more, models=models)
    path.write_text(rules, encoding="utf-8")
    return path


def write_answers(gate_path: Path, path: Path, repeats: int, wrong=lambda row, repeat: False):
    """Write answers to all items of a gate; ``wrong`` says which are wrong, by row and repeat."""
    built = build_requests(load_gate(gate_path))
    file = AnswerFile(dict(built.about))
    for requests in built.requests.values():
        for row, request in enumerate(requests.values()):
            texts = ["no" if wrong(row, each) else request.expected for each in range(repeats)]
            file.add(
                [
                    ItemAnswers(
                        label=request.label,
                        item=request.item,
                        digest=request.digest,
                        key=request.key,
                        texts=tuple(texts),
                    )
                ]
            )
    path.write_text(file.text(), encoding="utf-8")


def write_baseline(gate_path: Path, repeats: int = 5, wrong=lambda row, repeat: False):
    """Write the baseline of a gate."""
    write_answers(gate_path, load_gate(gate_path).baseline, repeats, wrong)


def write_recording(gate_path: Path, repeats: int = 1, wrong=lambda row, repeat: False):
    """Write the recording of a gate."""
    write_answers(gate_path, load_gate(gate_path).recording, repeats, wrong)
