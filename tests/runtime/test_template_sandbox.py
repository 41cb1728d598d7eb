"""Prompt files read data, change nothing, and stay within limits of size and time."""

from __future__ import annotations

import builtins
import contextlib
import copy
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics._util import filesystem
from llm_magics._util.filesystem import load_yaml
from llm_magics.errors import LLMError, TemplateError
from llm_magics.runtime.prompts import prompt_files
from llm_magics.runtime.prompts.templates import find_names, render
from llm_magics.sandbox import budget
from tests.support.examples import examples


def foreign(text: str, **variables: Any) -> str:
    """What a prompt file becomes."""
    return render(text, variables, is_foreign=True)


def write(text: str, name: str = "file") -> Path:
    """A prompt file of the project."""
    path = Path("prompts") / f"{name}.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    return path


CHANGES = [
    "{{ m.clear() }}", "{{ m.update(a=2) }}", "{{ m.pop('a') }}", "{{ m.setdefault('z', 1) }}",
    "{{ m.inner.append(3) }}", "{{ values.sort(reverse=true) }}", "{{ values.insert(0, 9) }}",
    "{{ marks.add(9) }}",
    "{{ (m | attr('clear'))() }}", "{% set f = m.clear %}{{ f() }}",
    "{{ df.drop(columns='a', inplace=True) }}", "{{ df.insert(0, 'b', 1) }}", "{{ df.pop('a') }}",
    "{{ df.attrs.clear() }}", "{{ df.attrs.update(a=1) }}", "{{ df.__setitem__('a', 1) }}",
    "{{ df.loc.__setitem__(0, 1) }}", "{{ df.update(df) }}", "{{ df.a.values.sort() }}",
    "{{ df.index.rename('x', inplace=True) }}", "{{ df.nested[0].append(9) }}",
    "{{ df.nested.tolist()[0].clear() }}", "{{ df.a.replace(1, 2, inplace=True) }}",
    "{{ array.fill(0) }}", "{{ array.sort() }}",
]  # fmt: skip


@pytest.mark.parametrize("text", CHANGES)
def test_a_file_changes_nothing_of_the_callers(text: str) -> None:
    """Neither mappings nor lists nor sets nor tables, nor what lies in them."""
    frame = pd.DataFrame({"a": [2, 1], "nested": [[1], [2]]})
    frame.attrs["kept"] = 1
    given: dict[str, Any] = {
        "m": {"a": 1, "inner": [1]},
        "values": [1, 2],
        "marks": {1},
        "df": frame,
        "array": pd.Series([3, 1]).to_numpy(),
    }
    before = copy.deepcopy(given)
    with pytest.raises(TemplateError):
        foreign(text, **given)
    pd.testing.assert_frame_equal(frame, before["df"])
    assert frame.attrs == {"kept": 1}
    assert given["array"].tolist() == [3, 1]
    assert {name: given[name] for name in ("m", "values", "marks")} == {
        name: before[name] for name in ("m", "values", "marks")
    }


WRITING = [
    "{{ df.to_csv('OUT') }}", "{{ df.to_csv(path_or_buf='OUT') }}", "{{ df.to_pickle('OUT') }}",
    "{{ df.to_parquet('OUT') }}", "{{ df.to_json('OUT') }}", "{{ df.to_string('OUT') }}",
    "{{ df.to_markdown('OUT') }}", "{{ df.to_sql('OUT', 'sqlite:///OUT') }}", "{{ df.eval('a + 1') }}",
    "{{ df.query('@pd') }}", "{{ df.pipe(len) }}", "{{ df.apply(len) }}", "{{ df.a.map(len) }}",
    "{{ df.a.to_pickle('OUT') }}", "{{ pf.write_csv('OUT') }}", "{{ pf.sql('select 1') }}",
    "{{ pf.serialize('OUT') }}", "{{ df.loc[len] }}", "{{ df[len] }}", "{{ array.tofile('OUT') }}",
    "{{ df._raw }}", "{{ df['_raw'] }}", "{{ df | attr('_raw') }}", "{{ '{0._raw}'.format(df) }}",
    "{{ df.loc._places }}", "{{ df.a._figure('sum') }}", "{{ df.iloc }}",
]  # fmt: skip


@pytest.mark.parametrize("text", WRITING)
def test_a_file_writes_nothing_and_runs_nothing(text: str) -> None:
    """No method of a table that takes a path, an expression or a function; nothing behind it."""
    frame = pd.DataFrame({"a": [1]})
    with pytest.raises(TemplateError):
        foreign(text, df=frame, pf=pl.DataFrame({"a": [1]}), array=frame.a.to_numpy())
    assert not Path("OUT").exists()


FRAMES = [
    pd.DataFrame({"a": [1, 2], "t": ["x", "y"]}),
    pl.DataFrame({"a": [1, 2], "t": ["x", "y"]}),
    pa.table({"a": [1, 2], "t": ["x", "y"]}),
]
READS = [
    ("{{ df.shape[0] }} {{ df | length }} {{ df.empty }}", "2 2 False"),
    ("{{ df.columns | length }} {{ df.dtypes | length }}", "2 2"),
    ("{% for x in df.a %}{{ x }},{% endfor %}", "1,2,"),
    ("{% for x in df['t'] %}{{ x }}{{ loop.last }} {% endfor %}", "xFalse yTrue "),
    ("{% for name, c in df.items() %}{{ name }}={{ c.tolist() }} {% endfor %}", "a=[1, 2] t=['x', 'y'] "),
    ("{% for row in df.to_dict('records') %}{{ row.a }}{{ row['t'] }} {% endfor %}", "1x 2y "),
    ("{% for row in df.itertuples() %}{{ row.Index }}{{ row.t }}{{ row[1] }} {% endfor %}", "0x1 1y2 "),
    ("{% for i, row in df.iterrows() %}{{ i }}{{ row['t'] }} {% endfor %}", "0x 1y "),
    ("{{ df.head(1).a.tolist() }}{{ df.tail(1).a.tolist() }}", "[1][2]"),
    ("{{ df.a.sum() }} {{ df.a.max() }} {{ df.a.mean() }}", "3 2 1.5"),
    ("{{ df.to_csv(index=False).split() | join(' ') }}", "a,t 1,x 2,y"),
    ("{{ df.to_markdown().splitlines()[2] }}", "| 1 | x |"),
    ("{{ df.to_json() }}", '[{"a":1,"t":"x"},{"a":2,"t":"y"}]'),
    ("{{ df.sort_values('a', ascending=False).t.tolist() }}", "['y', 'x']"),
    ("{{ df.a.unique() | length }}", "2"),
    ("{{ 't' in df }}{{ 'u' in df }}", "TrueFalse"),
]  # fmt: skip


@pytest.mark.parametrize("frame", FRAMES, ids=["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize(("text", "expected"), READS)
def test_tables_can_be_read(text: str, expected: str, frame: Any) -> None:
    """Rows, columns, figures and texts, in whatever library the table is."""
    assert foreign(text, df=frame) == expected


def test_pandas_is_read_by_labels_positions_and_conditions() -> None:
    """As in a cell; filters and bare tables give what they give there."""
    frame = FRAMES[0]
    assert foreign("{{ df.loc[1, 't'] }}{{ df.iloc[0]['t'] }}", df=frame) == "yx"
    assert (
        foreign("{{ df[df.a > 1].t.tolist() }}{{ (df.a * 2).tolist() }}", df=frame)
        == "['y'][2, 4]"
    )
    for text in ("{{ df }}", "{{ df | table(1) }}", "{{ df | describe }}", "{{ df.a }}!"):
        assert foreign(text, df=frame) == render(text, {"df": frame})


def test_data_is_read_as_in_a_cell() -> None:
    """Texts, numbers, lists, mappings, numpy's values, dates; macros, loops, namespaces, filters."""
    text = (
        "{{ name.upper() }} {{ '%05.1f' % x }} {{ '{:>4}'.format(n) }} {{ m.items() | list }}"
        "{% for k, v in m | dictsort %}{{ loop.index }}{{ k }}{{ v }}{% endfor %} {{ day.year }}"
        "{% macro f(a) %}<{{ a }}>{% endmacro %}{{ f(2) }}{% set ns = namespace(t=0) %}"
        "{% for i in range(4) %}{% set ns.t = ns.t + i %}{% endfor %}{{ ns.t }}"
        "{{ xs | map('upper') | join('-') }} {{ xs | sort(reverse=true) }} {{ name * 2 }} {{ day.strftime('%d') }}"
        "{{ undefined | default('?') }}{{ 'a' in name }}{{ name[1:] }} {{ [1, 2] + [3] }} {{ m | tojson }} {{ xs | sum(attribute='x') if no else len(xs) }}"
    )  # fmt: skip
    variables = {
        "name": "ann", "x": 2.5, "n": 7, "m": {"k": 1}, "day": pd.Timestamp("2024-03-05"),
        "xs": ("p", "q"), "no": False,
    }  # fmt: skip
    assert foreign(text, **variables) == render(text, variables)
    assert (
        foreign("{{ n + 1 }} {{ xs }}", n=pd.Series([1]).to_numpy()[0], xs=[pd.NA]) == "2 [<NA>]"
    )


BOMBS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% set _steps = 1 %}{% for a in range(9999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{% macro f(n) %}{% if n < 60 %}{{ f(n+1) }}{{ f(n+1) }}{% endif %}{% endmacro %}{{ f(0) }}",
    "{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}",
    "{% for i in [1] recursive %}{{ loop(range(9)) }}{{ loop(range(9)) }}{% endfor %}",
    "{{ 'a' * 10**9 }}", "{{ [1] * 10**9 }}", "{{ (1, 2) * 10**8 }}", "{{ 10 ** (10 ** 10) }}",
    "{{ x | center(10**9) }}", "{{ x.center(10**9) }}", "{{ x.zfill(10**9) }}",
    "{{ '%1000000000d' | format(1) }}", "{{ '%1000000000d' % 1 }}", "{{ '%*d' % (10**9, 1) }}",
    "{{ '%.999999999f' % 1.5 }}", "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{w}}'.format(1, w=10**9) }}", "{{ '{:%999999999d}'.format(day) }}",
    "{{ day.strftime('%999999999d') }}", "{{ range(10**12) | list }}", "{{ lipsum(n=100000) }}",
    "{{ lipsum(1, false, 1, 10**9) }}", "{{ '\\t'.expandtabs(10**9) }}", "{{ 5 | round(-10**9) }}",
    "{{ 5.5 | round(10**9, 'ceil') }}", "{{ round(5, -10**9) }}", "{{ (1).to_bytes(10**9) }}",
    "{{ ('ab' * 1000000) | replace('a', 'c' * 1000000) }}",
    "{{ ('a' * 100000).replace('a', 'a' * 100000) }}",
    "{{ range(100000) | join('a' * 1000000) }}", "{{ ('a' * 100000).join(['b'] * 100000) }}",
    "{{ ('\\n' * 1000000) | indent(1000000, blank=true) }}", "{{ ('<>' * 300000) | striptags }}",
    "{{ ('a' * 900000) | wordwrap(1) }}", "{{ [[1]] * 99999 | sum(start=[]) }}",
    "{{ ([[1]] * 99999) | sum(start=[]) }}", "{{ sum([[1]] * 99999, start=[]) }}",
    "{{ {'a': [[1]]} | tojson(indent=10**9) }}", "{{ ('f' * 1000000) | int(0, 16) }}",
    "{{ range(99999) | map('center', 99999) | list }}", "{{ ('{0}' * 100000).format('a' * 100000) }}",
    "{{ ('%s' * 100000) % (('a' * 100000),) }}", "{{ ('%(a)s' * 100000) % {'a': 'z' * 100000} }}",
    "{{ [1] | slice(10**9) | list }}", "{{ [1] | batch(10**9, 'x') | list }}",
    "{% filter center(10**9) %}a{% endfilter %}",
    "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a }}",
    "{% set ns = namespace(a=(1,)) %}{% for i in range(60) %}{% set ns.a = (ns.a, ns.a) %}{% endfor %}{{ {ns.a: 1} }}",
    "{% set ns = namespace(a='x') %}{% for i in range(60) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
    "{% set ns = namespace(a='x') %}{% for i in range(60) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
    "{% macro m() %}{% for i in range(99999) %}" + "z" * 1000 + "{% endfor %}{% endmacro %}{{ m() }}",
    "{% for i in range(99999) %}" + "z" * 1000 + "{% endfor %}",
    "{% for i in range(99999) %}{% set x %}" + "z" * 1000 + "{% endset %}{{ x }}{% endfor %}",
    "{% for i in range(99999) %}{{ df }}{{ df.head() }}{% endfor %}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "{% if 1 %}" * 500 + "{% endif %}" * 500,
    "{% include 'prompts/file.md' %}", "{% import 'x' as y %}", "{% extends 'x' %}",
    "{{ ('%(' * 300000) % 1 }}", "{{ ('%(' * 300000) | format(1) }}",
    "{{ '%((a))99999999d' % {'(a)': 1} }}", "{{ '%((a))*d' % {'(a)': 1} }}",
    "{{ day.strftime('%9999d' * 100000) }}", "{{ ('{:' ~ '%9999d' * 100000 ~ '}').format(day) }}",
    "{{ [df] * 20000 }}", "{{ ([df.a] * 20000) | string }}", "{{ {1: [df] * 20000} | string }}",
    "{% for i, row in df.iterrows() %}{{ [row] * 9000000 }}{% endfor %}",
    "{{ df[['a'] * 3000] }}", "{{ df.loc[[0] * 3000] }}", "{{ df.iloc[[0, 0], [0]] }}",
    "{{ df.a.values[[[0, 1], [1, 0]]] }}", "{{ zeros[zeros] }}", "{{ zeros.loc[zeros] }}",
    "{{ (ten ** 99999999) | int }}", "{{ int(ten ** 99999999) }}", "{{ '%d' % ten ** 99999999 }}",
    "{{ column + row }}", "{{ column < row }}", "{{ labels.head(2) + labels.tail(3) }}",
]  # fmt: skip


GROWING: dict[str, Any] = {
    "ten": Decimal(10),
    "zeros": pd.Series([0] * 5),
    "labels": pd.Series([1] * 5, index=[0] * 5),
    "column": pd.DataFrame({"a": [1.0, 2.0]}).to_numpy(),
    "row": pd.Series([1.0, 2.0]).to_numpy(),
}


@pytest.mark.parametrize("text", BOMBS)
def test_a_bomb_is_an_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would take hours or all memory ends in an error in words, well within a minute."""
    monkeypatch.setattr(budget, "MAX_SECONDS", 0.1)
    find_names(text)
    with pytest.raises(TemplateError):
        foreign(text, x="text", day=pd.Timestamp("2024-01-01"), df=FRAMES[0], **GROWING)


def test_parts_and_groups_are_no_bombs() -> None:
    """Parts of a table by names and conditions, groups, and tables in a list."""
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=["one", "one"])
    text = (
        "{{ df[['b', 'a']].shape }}{{ df[df.a > 1].shape }}{{ df.loc['one', 'a'].sum() }}"
        "{{ (df.a + df.a).tolist() }}{{ df.iloc[[1, 0]].b.tolist() }}{{ df[flags].a.tolist() }}"
        "{% for name, each in [('d', df), ('e', df)] %}{{ name }}{{ len(each) }}{% endfor %}"
        "{% for key, group in [{'k': 1}, {'k': 1}] | groupby('k') %}{{ key }}{{ len(group) }}{% endfor %}"
    )
    assert (
        foreign(text, df=frame, flags=[True, True]) == "(2, 2)(1, 2)3[2, 4]['y', 'x'][1, 2]d2e212"
    )


def test_passing_values_are_copied_each_for_itself() -> None:
    """Values that a library makes on the way may follow each other at the same place in memory."""
    scalars = [pa.scalar([number]) for number in range(5)]
    records = pd.Series([0]).to_numpy(dtype=[("a", int), ("b", float)]).repeat(3)
    records["a"] = [1, 2, 3]
    assert foreign("{{ v }}", v=scalars) == "[[0], [1], [2], [3], [4]]"
    assert foreign("{{ v }}", v=list(records)) == "[(1, 0.0), (2, 0.0), (3, 0.0)]"


class Client:
    """Something with an attribute that is nobody's business."""

    def __init__(self) -> None:
        self.api_key = "the-secret"


@pytest.mark.parametrize("frame", [pd.DataFrame({"c": [Client()]}), pd.DataFrame({"c": [[Client()]]}), pd.DataFrame({"a": [1]}, index=[Client()]), pd.DataFrame({Client(): [1]})])  # fmt: skip
@pytest.mark.parametrize("orient", ["records", "split", "table", "index"])
def test_json_of_a_table_holds_no_attributes(frame: pd.DataFrame, orient: str) -> None:
    """Of objects in its cells or among its labels, of which pandas writes all."""
    with pytest.raises(TemplateError, match="Client"):
        foreign("{{ df.to_json(orient='" + orient + "') }}", df=frame)


def test_the_time_of_a_rendering_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that makes nothing ends when the time is over; a cell's own loop has no limit."""
    text = "{% for a in range(500) %}{% for b in range(500) %}{% endfor %}{% endfor %}."
    assert foreign(text) == "."
    monkeypatch.setattr(budget, "MAX_SECONDS", -1.0)
    with pytest.raises(TemplateError, match="long"):
        foreign(text)
    assert render(text, {}) == "."


data = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(data)
@settings(deadline=None, max_examples=examples(60))
def test_data_is_filled_in_as_it_is(value: Any) -> None:
    """What a file shows of plain data is what a cell shows; the data stay as they were."""
    before = copy.deepcopy(value)
    assert foreign("{{ v }}|{{ v | tojson }}", v=value) == render("{{ v }}|{{ v | tojson }}", {"v": value})  # fmt: skip
    assert value == before


PARTS = st.sampled_from(
    ["m", "xs", "df", "x", "1", "'a'", "[xs, xs]", "(x ~ x)", "m.clear", "xs.append", "df.drop", "df.a",
     "dict", "namespace(a=1)", "cycler(1)", "range(9)", "df.loc", "self", "lipsum"]
)  # fmt: skip
ENDS = st.sampled_from(
    ["", "()", "(1)", "(x)", "| list", "| string", "* 99999", "** 9999", "% x", "[0]", "['a']", "[1:]",
     ".a", ".pop", ".update", "| map('string') | list", "| attr('clear')", "+ xs", "| tojson", "| sort", "| center(9999)"]
)  # fmt: skip


@given(PARTS, st.lists(ENDS, max_size=4))
@settings(deadline=None, max_examples=examples(200))
def test_no_expression_changes_the_data(first: str, ends: list[str]) -> None:
    """Each gives a text or an error of ours, and the caller's values stay as they were."""
    values = {"m": {"a": [1]}, "xs": [1, 2], "x": "t", "df": pd.DataFrame({"a": [1, 2]})}
    before = copy.deepcopy(values)
    with contextlib.suppress(TemplateError):
        foreign(f"{{{{ {first}{' '.join(ends)} }}}}", **values)
    pd.testing.assert_frame_equal(values.pop("df"), before.pop("df"))
    assert values == before


@pytest.mark.parametrize("name", ["In", "Out", "_", "__", "_i", "_i1", "_oh", "_ih", "_dh", "get_ipython", "exit", "quit", "open"])  # fmt: skip
def test_a_file_sees_nothing_of_ipythons(
    name: str, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither history nor outputs nor functions; the cell below it may show them."""
    monkeypatch.delattr(builtins, "_", raising=False)  # with which IPython keeps no _ of its own
    shell.run_cell("'the-secret-output'", store_history=True)
    shell.run_cell("'the-secret-output'", store_history=True)
    assert name in shell.user_ns
    write(f"{{{{ {name} }}}}")
    with pytest.raises(LLMError, match="not defined"):
        shell.run_cell_magic("llm", "echo/echo -t file", "\n")
    write("---\ndefaults: {" + name + ": mine}\n---\n{{ " + name + " }}")
    shell.run_cell_magic("llm", "echo/echo -t file -o ans", "\n")
    assert shell.user_ns["ans"].text == "mine"


def test_the_users_own_names_are_seen(shell: InteractiveShell) -> None:
    """Also those that begin with a line, and those that were IPython's before."""
    write("{{ _mine }} {{ exit }}{{ input }}")
    shell.run_cell("_mine = 'yes'; exit = 'door'")
    shell.run_cell_magic("llm", "echo/echo -t file -o ans", "!\n")
    assert shell.user_ns["ans"].text == "yes door!"


def test_history_by_another_name_is_no_data(shell: InteractiveShell) -> None:
    """`h = In` does not make the notebook's source data of the user's."""
    write("{{ h }}")
    shell.run_cell("h = In")
    with pytest.raises(LLMError, match=r"\bh\b"):
        shell.run_cell_magic("llm", "echo/echo -t file", "\n")


def test_a_system_message_of_a_file_is_limited_too(shell: InteractiveShell) -> None:
    """That of a prompt file, and that of a project's settings file; a cell's own is not."""
    settings_of_user = {"key": 1}
    write("---\nsystem: '{{ settings.clear() }}'\n---\nhi")
    with pytest.raises(TemplateError):
        lm.ask(template="file", model="echo/echo", variables={"settings": settings_of_user})
    assert settings_of_user == {"key": 1}
    shell.run_cell("def f(): return 'called'")
    Path("llm_magics.yaml").write_text("system: '{{ f() }}'\n", encoding="utf-8")
    lm.config.reload()
    with pytest.raises(LLMError, match=r"\bf\b"):
        shell.run_cell_magic("llm", "echo/echo", "hi\n")
    shell.run_cell_magic("llm", "echo/echo -s '{{ f() }}' -o ans", "{{ f() }}\n")
    assert shell.user_ns["ans"].messages[0].content == "called"


@pytest.mark.parametrize("value", [lambda: 1, object(), [object()], {"a": print}, os, pl.LazyFrame({"a": [1]})])  # fmt: skip
def test_what_is_no_data_is_refused(value: Any) -> None:
    """Wherever it lies, with the name that the file uses."""
    with pytest.raises(TemplateError, match=r"x (is|holds) a"):
        foreign("{{ x }}", x=value)


def test_what_is_too_much_is_refused() -> None:
    """A list of two million, one that holds itself; a frame of any size is not copied."""
    itself: list[Any] = []
    itself.append([itself])
    for value in ([0] * 2_000_000, itself):
        with pytest.raises(TemplateError, match="has more than"):
            foreign("{{ x | length }}", x=value)
    assert foreign("{{ x | length }}", x=pd.DataFrame({"a": range(2_000_000)})) == "2000000"


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, shell: InteractiveShell) -> None:
    """A file, a folder, a pipe; a link within the folder is followed."""
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "secret.md").write_text("canary")
    real = write("good", "real")
    (real.parent / "out.md").symlink_to(outside / "secret.md")
    (real.parent / "near.md").symlink_to("real.md")
    (real.parent / "gone.md").symlink_to(outside / "gone.md")
    os.mkfifo(real.parent / "pipe.md")
    assert prompt_files.load("near").text == "good"
    for name, message in (
        ("out", "a symbolic link to"),
        ("gone", "a symbolic link to"),
        ("pipe", "not a file"),
    ):
        with pytest.raises(TemplateError, match=message):
            prompt_files.load(name)
    listed = shell.run_line_magic("llm", "templates")
    assert "canary" not in listed.to_string()
    project = tmp_path / "project"
    project.mkdir()
    (project / "prompts").symlink_to(outside)
    with pytest.raises(TemplateError, match="prompts"):
        prompt_files.read(project / "prompts" / "secret.md")


def test_a_file_that_is_too_large_is_refused() -> None:
    """Before it is read."""
    write("x" * 1_000_001)
    with pytest.raises(TemplateError, match="more than"):
        prompt_files.load("file")


YAML_BOMBS = {
    "aliases": "x: &a0 [lol]\n"
    + "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)),
    "merges": "a0: &a0 {x: 1}\n"
    + "\n".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)),
    "itself": "a: &a [*a]",
    "deep": "a: " + "[" * 500 + "]" * 500,
    "long": "a: " + "x" * 300_000,
    "digits": "a: " + "1:" * 60_000 + "1",
    "many": "[" + "1," * 6_000 + "]",
}


@pytest.mark.parametrize("name", YAML_BOMBS)
def test_a_yaml_bomb_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the head of a prompt file and in a settings file, before any value is made."""
    assert filesystem._MAX_VALUES <= 50_000
    monkeypatch.setattr(filesystem, "_MAX_VALUES", 5_000)
    text = YAML_BOMBS[name]
    with pytest.raises(ValueError, match=r"\w"):
        load_yaml(text)
    write(f"---\n{text}\n---\nhi")
    with pytest.raises(TemplateError, match=r"file\.md"):
        prompt_files.load("file")


def test_aliases_in_yaml_are_read() -> None:
    """A few of them, and merges."""
    text = "base: &b {t: 0}\none: {<<: *b, m: 1}\ntwo: *b\n"
    assert load_yaml(text) == {"base": {"t": 0}, "one": {"t": 0, "m": 1}, "two": {"t": 0}}
