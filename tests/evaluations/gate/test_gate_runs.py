"""Runs of gates: outcomes, recordings, flaky items, costs, and baselines that are written."""

from __future__ import annotations

import json

import pytest

import llm_magics as lm
from llm_magics.errors import (
    AuthenticationError,
    ConfigurationError,
    ContentFilterError,
    UnsupportedError,
    UsageError,
)
from llm_magics.evaluations.gate.answers import AnswerFile
from llm_magics.evaluations.gate.requests import build_requests
from llm_magics.evaluations.gate.results import Outcome
from llm_magics.evaluations.gate.runner import Mode, Options, run_gates
from llm_magics.evaluations.gate.sources import cost_cap
from llm_magics.evaluations.gate.specification import load_gate
from llm_magics.evaluations.gate.update import update_baseline
from llm_magics.providers.echo import EchoProvider
from llm_magics.runtime.session import session
from tests.evaluations.gate.gate_folders import write_baseline, write_gate, write_recording

LIVE, REPLAY = Options(mode=Mode.LIVE), Options(mode=Mode.REPLAY)


def run(*paths, options=REPLAY):
    """Return the result of a run of gate files."""
    return run_gates([load_gate(each) for each in paths], options)


def only(result):
    """Return the only check of a result."""
    (check,) = result.checks
    return check


def test_equal_answers_pass(tmp_path):
    """The same answers as in the baseline pass, from a recording and without a cost."""
    path = write_gate(tmp_path)
    write_baseline(path)
    write_recording(path)
    result = run(path)
    assert (result.outcome, result.exit_code, result.cost_usd) == (Outcome.PASSED, 0, 0)
    assert not result.is_live
    assert (only(result).baseline, only(result).new, only(result).p) == (1, 1, 1)


def test_drop_fails(tmp_path):
    """A third of the answers has become wrong: the gate fails and names items."""
    path = write_gate(tmp_path)
    write_baseline(path)
    write_recording(path, wrong=lambda row, _: row % 3 == 0)
    check = only(run(path))
    assert check.outcome is Outcome.FAILED
    assert check.p < 0.01
    assert check.new == pytest.approx(2 / 3)
    assert len(check.worse) == 10
    assert all(was == 1 and now == 0 for _, was, now in check.worse)


def test_answers_that_always_varied_pass(tmp_path):
    """An item that is wrong now, but was often wrong in the baseline, is no evidence."""
    path = write_gate(tmp_path)
    write_baseline(path, wrong=lambda row, repeat: (row + repeat) % 3 == 0)
    write_recording(path, wrong=lambda row, _: row % 3 == 0)
    check = only(run(path))
    assert check.outcome is Outcome.PASSED
    assert check.p > 0.2


def test_too_few_items_are_undecided(tmp_path):
    """With too few items the gate says how many it needs, and the drop that can be seen."""
    path = write_gate(tmp_path, items=20, drop=0.05)
    write_baseline(path)
    write_recording(path)
    check = only(run(path))
    assert check.outcome is Outcome.UNDECIDED
    assert check.required > 100
    assert 0.05 < check.detectable < 0.5
    assert f"needs {check.required:,} items" in check.reason
    assert f"a drop of {check.detectable:.3g} can be seen" in check.reason


def test_few_items_can_fail(tmp_path):
    """Evidence of a drop counts, however few the items are."""
    path = write_gate(tmp_path, items=12, drop=0.05)
    write_baseline(path)
    write_recording(path, wrong=lambda row, _: row < 6)
    assert run(path).outcome is Outcome.FAILED


def test_changed_prompt_is_not_recorded(tmp_path):
    """After a change of the prompt the recording does not count, and the gate does not pass."""
    path = write_gate(tmp_path)
    write_baseline(path)
    write_recording(path)
    path.write_text(path.read_text("utf-8").replace("{{ text }}", "{{ text }}?"), encoding="utf-8")
    result = run(path)
    assert (result.outcome, result.exit_code) == (Outcome.NOT_RECORDED, 4)
    assert len(only(result).unrecorded) == 60
    assert "changed since the baseline: prompt" in result.notes[0]


def test_a_changed_schema_is_a_changed_prompt(tmp_path):
    """The schema of a prompt file is part of its requests."""
    path = write_gate(tmp_path)
    rules = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text(
        "".join("prompt_file: p.md\n" if line.startswith("prompt:") else line for line in rules),
        encoding="utf-8",
    )
    schema = (
        "---\nschema: {{type: object, properties: {{n: {{type: {}}}}}}}\n---\n{{{{ text }}}}\n"
    )
    (tmp_path / "p.md").write_text(schema.format("string"), encoding="utf-8")
    write_baseline(path)
    write_recording(path)
    (tmp_path / "p.md").write_text(schema.format("integer"), encoding="utf-8")
    result = run(path)
    assert result.outcome is Outcome.NOT_RECORDED
    assert "changed since the baseline: prompt" in result.notes[0]


def test_one_missing_answer_is_not_recorded(tmp_path):
    """A recording that lacks one item of many does not pass."""
    path = write_gate(tmp_path)
    write_baseline(path)
    write_recording(path)
    recording = load_gate(path).recording
    lines = recording.read_text("utf-8").splitlines(keepends=True)
    recording.write_text("".join(lines[:-1]), encoding="utf-8")
    check = only(run(path))
    assert (check.outcome, check.unrecorded) == (Outcome.NOT_RECORDED, ("q059",))


def test_named_recording_that_is_missing_sends_nothing(tmp_path):
    """If the gate file names a recording, a run without the file is not recorded, and not live."""
    path = write_gate(tmp_path, more="recording: answers.jsonl")
    write_baseline(path)
    result = run(path, options=Options())
    assert result.outcome is Outcome.NOT_RECORDED
    assert not result.is_live


def test_recording_with_too_few_repeats_is_not_recorded(tmp_path):
    """Each item needs as many answers as the gate file says."""
    path = write_gate(tmp_path, more="repeats: 2")
    write_baseline(path)
    write_recording(path)
    assert run(path).outcome is Outcome.NOT_RECORDED


def test_flaky_items_depend_on_the_baseline_alone(tmp_path):
    """Flaky items are at most 5 %, listed, left out, and the same whatever the new answers are."""
    path = write_gate(tmp_path)
    write_baseline(path, 8, wrong=lambda row, repeat: row < 9 and repeat % 2 == 0)
    found = set()
    for wrong in (lambda *_: False, lambda row, _: row > 50):
        write_recording(path, wrong=wrong)
        check = only(run(path))
        found.add(check.flaky)
        assert check.items == 57
    (flaky,) = found
    assert len(flaky) == 3


def test_flaky_items_are_only_listed_on_request(tmp_path):
    """With flaky: list all items are compared, by all repeats of the baseline."""
    path = write_gate(tmp_path, more="flaky: list")
    write_baseline(path, 8, wrong=lambda row, repeat: row == 0 and repeat % 2 == 0)
    write_recording(path)
    check = only(run(path))
    assert (check.items, len(check.flaky), check.are_flaky_left_out) == (60, 1, False)
    assert check.baseline == pytest.approx(59.5 / 60)


def test_changed_and_new_items_are_listed(tmp_path):
    """Items without a stored answer to the same inputs are listed and not compared."""
    path = write_gate(tmp_path)
    write_baseline(path)
    data = load_gate(path).data
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    rows[3]["text"] = rows[3]["expected"] = "changed"
    rows.append({"id": "new", "text": "x", "expected": "x"})
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    write_recording(path)
    check = only(run(path))
    assert sorted(check.unmatched) == ["new", "q003"]
    assert check.items == 59


def test_errors_are_shared_by_all_checks(tmp_path):
    """The same weak evidence fails alone, but not beside nineteen other checks."""
    weak = write_gate(tmp_path, "weak")
    write_baseline(weak)
    write_recording(weak, wrong=lambda row, _: row % 20 == 0)
    alone = only(run(weak))
    assert alone.outcome is Outcome.FAILED
    assert 0.003 < alone.p <= 0.05
    labels = ", ".join(f"m{each}: echo/echo" for each in range(19))
    good = write_gate(tmp_path, "good", items=3, models=f"{{{labels}}}")
    write_baseline(good)
    write_recording(good)
    together = run(weak, good).checks[0]
    assert together.outcome is not Outcome.FAILED
    assert together.p == pytest.approx(min(1.0, 20 * alone.p))


def test_labels_let_a_model_be_replaced(tmp_path):
    """A single model can be replaced by another: the baseline has its answers under model."""
    path = write_gate(tmp_path)
    write_baseline(path)
    path.write_text(path.read_text("utf-8").replace("echo/echo", "echo/lorem"), encoding="utf-8")
    write_recording(path)
    result = run(path)
    assert result.outcome is Outcome.PASSED
    assert "models" in result.notes[0]


def test_equal_names_are_an_error(tmp_path):
    """Two gates of a run cannot have the same name in reports."""
    paths = [write_gate(tmp_path / each) for each in ("a", "b")]
    for each in paths:
        write_baseline(each)
    with pytest.raises(UsageError, match='both called "support"'):
        run(*paths)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("recording: all.jsonl", "recording: ../gates/all.jsonl"),
        ("baseline: {file: all.jsonl}", "baseline: {file: ./all.jsonl}"),
        ("recording: all.jsonl", "baseline: {file: all.jsonl}"),
        ("recording: one.baseline.jsonl", ""),
    ],
)
def test_gates_with_a_common_file_are_an_error(tmp_path, first, second):
    """They would overwrite each other's answers."""
    paths = [
        write_gate(tmp_path / "gates", name, items=20, more=more)
        for name, more in (("one", first), ("two", second))
    ]
    with pytest.raises(
        UsageError, match=r"gates/\w+[.\w]*jsonl is the \w+ of .* and the"
    ) as caught:
        run(*paths, options=LIVE)
    assert "another file" in caught.value.hint


def test_a_recording_of_several_gates_is_an_error(tmp_path):
    """The recording of the command is for one gate, also if the gates are in a folder."""
    paths = [write_gate(tmp_path, name, items=20) for name in ("one", "two")]
    options = Options(mode=Mode.RECORD, recording=tmp_path / "all.jsonl")
    with pytest.raises(UsageError, match=r"all\.jsonl is the recording of .*one\.yaml and"):
        run(*paths, options=options)


def test_without_a_baseline(tmp_path):
    """Without a baseline, the error says how to write it."""
    path = write_gate(tmp_path)
    with pytest.raises(UsageError, match="has no baseline") as caught:
        run(path)
    assert "--update-baseline" in caught.value.hint


def test_data_without_expected_answers(tmp_path):
    """A score that needs expected answers is an error if there are none."""
    path = write_gate(tmp_path, items=3)
    write_baseline(path)
    data = load_gate(path).data
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    text = "".join(f"{json.dumps({'id': row['id'], 'text': row['text']})}\n" for row in rows)
    data.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="no item has an expected answer"):
        run(path)


@pytest.mark.parametrize(
    ("prompt", "message", "hint"),
    [
        (
            "{{ txt }}",
            r"support\.yaml: the prompt uses \{\{ txt \}\}, which is not a column",
            "text",
        ),
        ("Hi", r"support\.yaml: the prompt has no \{\{ column \}\}", "{{ text }}"),
        ("{{ text.nope() }}", r"support\.yaml, item q00\d: ", "expression"),
    ],
)
def test_mistakes_of_prompts(tmp_path, prompt, message, hint):
    """A prompt that cannot be built, or is the same for all items, is a usage error."""
    path = write_gate(tmp_path, items=3)
    path.write_text(path.read_text("utf-8").replace("{{ text }}", prompt), encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        build_requests(load_gate(path))
    assert hint in caught.value.hint


@pytest.mark.parametrize("prompt", ["{{ input }}", "{{ row.text }}", "{{ row['text'] }}"])
def test_prompts_find_columns_as_in_evaluations(tmp_path, prompt):
    """The only column is also called input, and row has all; the requests are the same."""
    path = write_gate(tmp_path, items=3)
    keys = [each.key for each in build_requests(load_gate(path)).requests["model"].values()]
    path.write_text(path.read_text("utf-8").replace("{{ text }}", prompt), encoding="utf-8")
    found = build_requests(load_gate(path)).requests["model"].values()
    assert [each.key for each in found] == keys


def test_prompt_file_without_a_column_ends_with_the_input(tmp_path):
    """As in lm.evaluate, the only column is appended to a prompt file that uses none."""
    path = write_gate(tmp_path, items=1)
    text = path.read_text("utf-8")
    path.write_text(text.replace('prompt: "{{ text }}"', "prompt_file: p.md"), encoding="utf-8")
    (tmp_path / "p.md").write_text("Repeat this.", encoding="utf-8")
    (request,) = build_requests(load_gate(path)).requests["model"].values()
    assert request.call().messages[-1].content == "Repeat this.\n\n0"


def test_missing_values_are_empty_in_prompts(tmp_path):
    """A missing value is an empty text, not the word None."""
    path = write_gate(tmp_path, items=1, more="")
    row = {"id": "a", "text": "x", "note": None, "expected": "x"}
    data = [row, {**row, "id": "b", "note": "y"}]
    lines = "".join(f"{json.dumps(each)}\n" for each in data)
    path.with_suffix(".jsonl").write_text(lines, encoding="utf-8")
    text = path.read_text("utf-8").replace("{{ text }}", "{{ text }}-{{ note }}")
    path.write_text(text, encoding="utf-8")
    found = build_requests(load_gate(path)).requests["model"]
    assert found["a"].call().messages[-1].content == "x-"


def test_other_files_are_not_overwritten(tmp_path):
    """A file that has no answers of a gate is refused before any request, and stays as it is."""
    path = write_gate(tmp_path, items=20)
    gate = load_gate(path)
    gate.baseline.write_text("export A=1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="not an answer of a gate"):
        update_baseline(gate, LIVE)
    assert gate.baseline.read_text("utf-8") == "export A=1\n"
    write_baseline(path)
    gate.recording.write_text("export A=1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="not an answer of a gate"):
        run(path, options=Options(mode=Mode.RECORD))
    assert gate.recording.read_text("utf-8") == "export A=1\n"
    assert not len(lm.runs())


def test_options_of_scorers_are_checked(tmp_path):
    """Unknown arguments of a scorer are an error that names the field."""
    path = write_gate(tmp_path, items=3)
    text = path.read_text("utf-8").replace("{drop: 0.3}", "{options: {case: 1}}")
    path.write_text(text, encoding="utf-8")
    write_baseline(path)
    with pytest.raises(UsageError, match=r"scores\.exact\.options"):
        run(path)


def test_live_answers_are_recorded_and_replayed(tmp_path):
    """A live run writes its answers, and a replay of them has the same result."""
    path = write_gate(tmp_path, items=20, drop=0.5)
    write_baseline(path)
    live = run(path, options=Options(mode=Mode.RECORD))
    again = run(path, options=Options())
    assert (live.is_live, again.is_live) == (True, False)
    assert live.checks == again.checks
    assert live.outcome is Outcome.PASSED


def test_a_stopped_recording_does_not_replace_the_old_one(tmp_path, monkeypatch):
    """The answers so far are in a partial file, with which the same command continues."""
    path = write_gate(tmp_path, items=20, drop=0.5)
    write_baseline(path)
    write_recording(path, wrong=lambda *_: True)
    recording = load_gate(path).recording
    before, partial = (
        recording.read_text("utf-8"),
        recording.with_name(f"{recording.name}.partial"),
    )
    answer, asked = EchoProvider.generate_chat, []

    async def fail_later(self, messages, model, parameters):
        asked.append(messages[-1].content)
        if len(asked) > 8:
            msg = "The key has expired."
            raise AuthenticationError(msg)
        return await answer(self, messages, model, parameters)

    with monkeypatch.context() as patch:
        patch.setattr(EchoProvider, "generate_chat", fail_later)
        with pytest.raises(AuthenticationError):
            run(path, options=Options(mode=Mode.RECORD))
    assert recording.read_text("utf-8") == before
    known = len(AnswerFile.load(partial).answers)
    assert known > 4
    assert only(run(path, options=Options(mode=Mode.RECORD))).outcome is Outcome.PASSED
    assert len(lm.runs()) - len(asked) <= 20 - known
    assert not partial.exists()
    assert only(run(path)).outcome is Outcome.PASSED


def test_an_incomplete_recording_is_not_written(tmp_path, monkeypatch):
    """If requests failed, the old recording stays, with a note."""
    path = write_gate(tmp_path, items=20, drop=0.5)
    write_baseline(path)
    write_recording(path)
    recording = load_gate(path).recording
    before = recording.read_text("utf-8")
    lm.config.retries = 0

    async def fail(self, messages, model, parameters):
        msg = "The line is cut."
        raise UnsupportedError(msg)

    monkeypatch.setattr(EchoProvider, "generate_chat", fail)
    result = run(path, options=Options(mode=Mode.RECORD))
    assert any("the recording was not written" in note for note in result.notes)
    assert recording.read_text("utf-8") == before


def test_a_recording_stays_if_nothing_was_asked(tmp_path):
    """A run whose items are all new has no answers to record."""
    path = write_gate(tmp_path, items=20)
    write_baseline(path)
    write_recording(path)
    recording = load_gate(path).recording
    before = recording.read_text("utf-8")
    data = path.with_suffix(".jsonl")
    data.write_text(data.read_text("utf-8").replace('"text": "', '"text": "new '), "utf-8")
    run(path, options=Options(mode=Mode.RECORD))
    assert recording.read_text("utf-8") == before


def test_live_run_stops_at_the_first_failure(tmp_path):
    """A large drop ends a live run before all items are asked."""
    path = write_gate(tmp_path, items=100)
    write_baseline(path)
    path.write_text(path.read_text("utf-8").replace("{{ text }}", "not {{ text }}"), "utf-8")
    check = only(run(path, options=LIVE))
    assert check.outcome is Outcome.FAILED
    assert check.looks < check.planned_looks == 5
    assert check.items < 100


def test_recording_of_a_failure_is_complete(tmp_path):
    """A run that writes the recording asks all items, so that a replay fails as well."""
    path = write_gate(tmp_path, items=100)
    write_baseline(path)
    path.write_text(path.read_text("utf-8").replace("{{ text }}", "not {{ text }}"), "utf-8")
    recorded = run(path, options=Options(mode=Mode.RECORD))
    assert only(recorded).outcome is Outcome.FAILED
    assert only(recorded).items == 100
    assert run(path, options=Options()).checks == recorded.checks


def test_cost_is_capped(tmp_path):
    """No request is sent that may exceed the limit; the gate is then undecided."""
    path = write_gate(tmp_path, items=10, more="max_cost_usd: 0.000001")
    write_baseline(path)
    lm.config.prices = {"echo/*": {"input_usd": 1000.0, "output_usd": 1000.0}}
    result = run(path, options=LIVE)
    assert result.outcome is Outcome.UNDECIDED
    assert "limit of the cost" in only(result).reason
    assert result.cost_usd == 0
    assert len(lm.runs()) == 0 or not lm.runs()["output_tokens"].sum()


def test_cost_cap_restores_the_budget():
    """After a run the user's budget is as before, less what was spent."""
    lm.config.budget = 2.0
    assert session.budget.left_usd == 2.0
    with cost_cap(0.5) as spent:
        assert session.budget.limit_usd == 0.5
        session.budget.spent_usd += 0.25
        assert next(spent) == 0.25
    assert (lm.config.budget, session.budget.left_usd) == (2.0, 1.75)


def test_failed_requests_are_no_evidence(tmp_path, monkeypatch):
    """If requests fail, their items have no score; the gate is undecided and says why."""
    path = write_gate(tmp_path, items=20, drop=0.5)
    write_baseline(path)
    lm.config.retries = 0
    answer = EchoProvider.generate_chat

    async def fail_sometimes(self, messages, model, parameters):
        if int(messages[-1].content) % 5 == 0:
            msg = "The line is cut."
            raise UnsupportedError(msg)
        return await answer(self, messages, model, parameters)

    monkeypatch.setattr(EchoProvider, "generate_chat", fail_sometimes)
    result = run(path, options=LIVE)
    check = only(result)
    assert check.outcome is Outcome.UNDECIDED
    assert sorted(check.missing) == ["q000", "q005", "q010", "q015"]
    assert (check.items, check.new) == (16, 1.0)
    assert any("4 requests failed: The line is cut." in note for note in result.notes)


def test_refused_answers_are_wrong(tmp_path, monkeypatch):
    """An answer that the model refuses has the score 0: it is the model that is worse."""
    path = write_gate(tmp_path, items=20, drop=0.5)
    write_baseline(path)

    async def refuse(self, messages, model, parameters):
        msg = "Refused."
        raise ContentFilterError(msg)

    monkeypatch.setattr(EchoProvider, "generate_chat", refuse)
    check = only(run(path, options=LIVE))
    assert (check.outcome, check.new) == (Outcome.FAILED, 0.0)


def test_unknown_model_ends_the_run(tmp_path):
    """An error that concerns all requests is raised at once."""
    path = write_gate(tmp_path, items=20, models="nowhere/model")
    write_baseline(path)
    with pytest.raises(ConfigurationError, match="nowhere"):
        run(path, options=LIVE)


def test_update_writes_repeated_answers(tmp_path):
    """Writing a baseline asks each item several times, and states the needed sample."""
    path = write_gate(tmp_path, items=20, more="baseline: {repeats: 3}")
    update = update_baseline(load_gate(path), Options())
    assert update.outcome is Outcome.PASSED
    assert "60 answers to 20 items" in update.message
    assert "a drop of 0.3 needs" in update.message
    stored = AnswerFile.load(load_gate(path).baseline)
    assert {len(each.texts) for each in stored.answers.values()} == {3}
    assert not path.with_name("support.baseline.jsonl.partial").exists()


def test_worse_baseline_is_refused_unless_accepted(tmp_path):
    """Worse answers replace the baseline only if they are accepted."""
    path = write_gate(tmp_path, items=20, more="baseline: {repeats: 3}")
    write_baseline(path, 3)
    before = load_gate(path).baseline.read_text("utf-8")
    path.write_text(path.read_text("utf-8").replace("{{ text }}", "not {{ text }}"), "utf-8")
    refused = update_baseline(load_gate(path), Options())
    assert refused.outcome is Outcome.FAILED
    assert load_gate(path).baseline.read_text("utf-8") == before
    accepted = update_baseline(load_gate(path), Options(), is_accepted=True)
    assert accepted.outcome is Outcome.PASSED
    assert load_gate(path).baseline.read_text("utf-8") != before


def test_update_from_a_recording(tmp_path):
    """A baseline is written from a recording on request; one with too few answers is refused."""
    path = write_gate(tmp_path, items=20, more="baseline: {repeats: 3}")
    write_recording(path, 2)
    refused = update_baseline(load_gate(path), REPLAY)
    assert (refused.outcome, load_gate(path).baseline.exists()) == (Outcome.NOT_RECORDED, False)
    write_recording(path, 3)
    assert update_baseline(load_gate(path), REPLAY).outcome is Outcome.PASSED


@pytest.mark.parametrize("more", ["", "recording: support.answers.jsonl"])
def test_update_asks_the_model_although_there_is_a_recording(tmp_path, more):
    """A baseline needs new answers; a recording has one for each item, and may be old."""
    path = write_gate(tmp_path, items=5, more=f"baseline: {{repeats: 2}}\n{more}")
    write_recording(path, 2, wrong=lambda *_: True)
    assert update_baseline(load_gate(path), Options()).outcome is Outcome.PASSED
    stored = AnswerFile.load(load_gate(path).baseline)
    assert {each.texts for each in stored.answers.values()} == {(f"{n}",) * 2 for n in range(5)}


def test_interrupted_update_continues(tmp_path):
    """Answers in the partial file are not asked for again."""
    path = write_gate(tmp_path, items=20, more="baseline: {repeats: 3}")
    write_baseline(path, 2, wrong=lambda *_: True)
    gate = load_gate(path)
    gate.baseline.rename(gate.baseline.with_name("support.baseline.jsonl.partial"))
    update_baseline(gate, Options())
    stored = AnswerFile.load(gate.baseline)
    assert {each.texts[:2] for each in stored.answers.values()} == {("no", "no")}
    assert all(each.texts[2] == str(int(item[1:])) for (_, item), each in stored.answers.items())


@pytest.mark.parametrize("options", [LIVE, REPLAY])
def test_data_that_changed_completely_are_undecided(tmp_path, options):
    """If no item has the inputs that it has in the baseline, nothing can be compared or passes."""
    path = write_gate(tmp_path, items=20)
    write_baseline(path)
    data = path.with_suffix(".jsonl")
    data.write_text(data.read_text("utf-8").replace('"text": "', '"text": "new '), "utf-8")
    write_recording(path)
    check = only(run(path, options=options))
    assert check.outcome is Outcome.UNDECIDED
    assert "update the baseline" in check.reason
    assert (check.items, len(check.unmatched)) == (0, 20)
