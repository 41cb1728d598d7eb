"""Gate files and files of answers: fields, errors, and what is written."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magics.errors import UsageError
from llm_magics.evaluations.gate.answers import AnswerFile, ItemAnswers
from llm_magics.evaluations.gate.specification import GateFile, load_gate
from llm_magics.secrets import register_secret
from tests.evaluations.gate.gate_folders import write_gate

SMALL = "data: d.jsonl\nprompt: 'Hi {{ text }}'\nmodels: echo/echo\nscores: exact\n"


def load(folder, text):
    """Return the gate of a file with ``text``."""
    path = folder / "g.yaml"
    path.write_text(text, encoding="utf-8")
    return load_gate(path)


def test_defaults(tmp_path):
    """A small file has the documented defaults, and paths beside it."""
    gate = load(tmp_path, SMALL)
    rules = gate.rules
    assert gate.name == "g"
    assert rules.models == {"model": "echo/echo"}
    assert rules.scores["exact"].drop == 0.05
    assert (rules.repeats, rules.baseline.repeats, rules.max_cost_usd) == (1, 8, 5.0)
    assert gate.data == tmp_path / "d.jsonl"
    assert gate.baseline == tmp_path / "g.baseline.jsonl"
    assert gate.recording == tmp_path / "g.answers.jsonl"


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ("a/b", {"model": "a/b"}),
        ("[a/b, c/d]", {"a/b": "a/b", "c/d": "c/d"}),
        ("{small: a/b}", {"small": "a/b"}),
    ],
)
def test_models_have_labels(tmp_path, models, expected):
    """A single model has the label model, so that a change of the model is compared."""
    assert load(tmp_path, SMALL.replace("echo/echo", models)).rules.models == expected


@pytest.mark.parametrize(
    ("scores", "drops"),
    [
        ("[exact, contains]", {"exact": 0.05, "contains": 0.05}),
        ("{exact: , numeric: {drop: 0.1}}", {"exact": 0.05, "numeric": 0.1}),
    ],
)
def test_scores_have_drops(tmp_path, scores, drops):
    """Scores are a name, a list of names, or names with rules."""
    rules = load(tmp_path, SMALL.replace("scores: exact", f"scores: {scores}")).rules
    assert {name: rule.drop for name, rule in rules.scores.items()} == drops


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (SMALL + "repeat: 3\n", "unknown field repeat"),
        (SMALL.replace("models: echo/echo\n", ""), "the field models is missing"),
        (
            SMALL.replace("exact", "{exact: {drop: 0}}"),
            "scores.exact.drop: input should be greater",
        ),
        (SMALL.replace("exact", "{exact: {drop: .nan}}"), "scores.exact.drop"),
        (SMALL.replace("exact", "exat"), 'unknown score "exat". Did you mean exact?'),
        (SMALL.replace("exact", "judge"), "answers of several models: use lm.evaluate."),
        (SMALL + "prompt_file: p.md\n", "give either prompt or prompt_file"),
        (SMALL + "repeats: 0\n", "repeats: input should be greater than or equal to 1"),
        (SMALL.replace("echo/echo", "{a: [1]}"), "models.a: input should be a valid string"),
        (SMALL.replace("echo/echo", "{}"), "models: must not be empty"),
        (SMALL.replace("d.jsonl", "3"), "data: must be a path"),
        (SMALL.replace("exact", "{exact: {drop: 5%}}"), "drop: must be a number, such as 0.05"),
        (SMALL + "models: echo/lorem\n", "the key 'models' in line 3 occurs more than once"),
        (SMALL + "data: !!python/name:os.system\n", "is not valid YAML"),
        ("[1]", "has no fields"),
        ("a: [", "is not valid YAML"),
        ("", "has no fields"),
    ],
)
def test_mistakes_name_the_field(tmp_path, text, named):
    """An invalid file is a usage error that names the field, and has a hint."""
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert named in str(caught.value)
    assert "g.yaml" in str(caught.value)
    assert caught.value.hint


def test_misspelled_field_has_a_suggestion(tmp_path):
    """A misspelled field is followed by the nearest one."""
    with pytest.raises(UsageError) as caught:
        load(tmp_path, SMALL + "recordin: a.jsonl\n")
    assert caught.value.hint == "Did you mean recording?"
    with pytest.raises(UsageError, match=r"unknown field scores\.exact\.dorp") as caught:
        load(tmp_path, SMALL.replace("exact", "{exact: {dorp: 0.1}}"))
    assert caught.value.hint == "Did you mean drop?"


def test_missing_file(tmp_path):
    """A file that does not exist is a usage error."""
    with pytest.raises(UsageError, match=r"Could not read .*none\.yaml"):
        load_gate(tmp_path / "none.yaml")


def test_all_fields_are_documented():
    """The docstring of the model describes every field."""
    for name in GateFile.model_fields:
        assert f"    {name}:" in inspect.getdoc(GateFile)  # 3.13 stores it without indentation


def test_prompt_file_has_parameters(tmp_path):
    """The front matter of a prompt file is used, and the gate file overrides it."""
    (tmp_path / "prompts").mkdir()
    head = "---\nsystem: Be brief.\nparameters: {temperature: 0, seed: 1}\n---\nHi {{ text }}"
    (tmp_path / "prompts" / "p.md").write_text(head, encoding="utf-8")
    text = SMALL.replace("prompt: 'Hi {{ text }}'", "prompt_file: prompts/p.md")
    prompt = load(tmp_path, f"{text}parameters: {{seed: 2}}\n").prompt()
    assert (prompt.text, prompt.system) == ("Hi {{ text }}", "Be brief.")
    assert prompt.parameters == {"temperature": 0, "seed": 2}


def answers(item="a", texts=("x",), label="model"):
    """Return answers to an item."""
    return ItemAnswers(label=label, item=item, digest="d", key="k", texts=tuple(texts))


@given(
    texts=st.lists(st.none() | st.text(max_size=8), max_size=6),
    item=st.text(min_size=1, max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_files_return_what_was_written(texts, item):
    """Answers of any text survive, in their order; lone surrogates cannot be stored."""
    file = AnswerFile({"data": "x"})
    clean = [each and each.encode("utf-8", "replace").decode() for each in texts]
    file.add([answers(item.encode("utf-8", "replace").decode(), clean)])
    loaded = AnswerFile.parse(file.text().encode(), "a.jsonl")
    assert loaded.about == {"data": "x"}
    assert loaded.answers == file.answers


def test_files_are_sorted_and_write_equal_answers_once(tmp_path):
    """One changed item is one changed line, whatever the order of the answers was."""
    first, second = AnswerFile(), AnswerFile()
    first.add([answers("a"), answers("b", ["yes", "no", "yes"])])
    second.add([answers("b", ["yes", "no", "yes"]), answers("a")])
    first.save(tmp_path / "1.jsonl")
    second.save(tmp_path / "2.jsonl")
    lines = (tmp_path / "1.jsonl").read_text("utf-8").splitlines()
    assert lines == (tmp_path / "2.jsonl").read_text("utf-8").splitlines()
    last = json.loads(lines[2])
    assert (last["answers"], last["repeats"]) == (["yes", "no"], [0, 1, 0])


def test_keys_are_removed(tmp_path):
    """An answer that repeats an API key is written without it."""
    register_secret("sk-verysecretkey-0123456789")
    file = AnswerFile()
    file.add([answers(texts=["the key is sk-verysecretkey-0123456789"])])
    file.save(tmp_path / "a.jsonl")
    assert "verysecret" not in (tmp_path / "a.jsonl").read_text("utf-8")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"item": "a"}',
        '{"item": "a", "model": "m", "input": "d", "key": "k", "answers": ["x"], "repeats": [1]}',
        '{"item": "a", "model": "m", "input": "d", "key": "k", "answers": [1], "repeats": [0]}',
        '{"item": 1, "model": "m", "input": "d", "key": "k", "answers": ["x"], "repeats": [0]}',
        "[" * 100_000,
    ],
)
def test_damaged_line_is_named(tmp_path, line):
    """A damaged line is a usage error with its number; nothing is skipped silently."""
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"format": "llm_magics answers 1"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="line 2"):
        AnswerFile.load(path)


def test_other_file_is_refused(tmp_path):
    """A file of another format is not read as answers."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="line 1: not an answer"):
        AnswerFile.load(path)


def test_unwritable_path_is_an_error(tmp_path):
    """A path that is a folder cannot be written, and the error says why."""
    with pytest.raises(UsageError, match="Could not write"):
        AnswerFile().save(tmp_path)


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    """A gate can be run from any folder."""
    path = write_gate(tmp_path / "evals")
    monkeypatch.chdir(tmp_path)
    assert (
        load_gate(Path("evals/support.yaml")).data.resolve()
        == path.with_suffix(".jsonl").resolve()
    )
