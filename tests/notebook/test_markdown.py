"""Model text made harmless."""

from __future__ import annotations

import importlib.util
import re
from html import unescape
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magics._util import typesetting
from llm_magics.notebook import markdown, markdown_rules
from llm_magics.notebook.markdown import highlight
from tests.support.html_reader import Reader
from tests.support.kernels import Kernel
from tests.support.prepared_python import run_prepared

TAGS = {
    "p",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "ul",
    "ol",
    "li",
    "blockquote",
    "pre",
    "code",
    "em",
    "strong",
    "s",
    "a",
    "hr",
    "br",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "div",
    "span",
}
# The colour of code: a literal one, and JupyterLab's.
COLOUR = r"color:(#[0-9a-f]{6});color:var\(--jp-mirror-editor-[a-z]+-color,\1\)"
# A value in an inline style: words, lengths, colours and variables, but no address.
STYLE = r"(?:[a-z-]+:(?:[\w#%. -]|var\([\w#,-]+\)|rgba\([\d.,]+\))+;?)+"
ATTRIBUTES = {"href", "title", "rel", "target", "class", "start", "style"}

PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](https://evil.example/x.png)",
    "![x][y]\n\n[y]: https://evil.example/x.png",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](vbscript:x)",
    "[x](//evil.example)",
    "<javascript:alert(1)>",
    "<style>*{background:url(https://evil.example)}</style>",
    "<svg onload=alert(1)>",
    "<iframe src=https://evil.example></iframe>",
    "```html\n<script>alert(1)</script>\n```",
    '```"><script>alert(1)</script>\nx\n```',
    "`<img src=x onerror=alert(1)>`",
    "\\`<img src=x onerror=alert(1)>\\`",
    "| a |\n|---|\n| <img src=x onerror=alert(1)> |",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    '[x](https://a.example "onclick=alert(1)")',
    '[x](https://a.example/"onmouseover="alert(1))',
    "$$\n```\n<img src=x onerror=alert(1)>\n$$",
]


def assert_harmless(rendered: str) -> None:
    """Only known tags and attributes, and links that lead to the web."""
    reader = Reader()
    reader.feed(rendered)
    for tag, attributes in reader.tags:
        assert tag in TAGS
        is_coloured = tag == "span" and set(attributes) == {"style"}
        if is_coloured:
            assert re.fullmatch(COLOUR, attributes["style"] or "")
            continue
        assert attributes.get("class") in (None, "mathjax_ignore", "mathjax_process")
        assert set(attributes) <= ATTRIBUTES
        href = attributes.get("href")
        assert href is None or href.lower().startswith(("http://", "https://", "mailto:", "#"))
        assert re.fullmatch(STYLE, attributes.get("style") or "color:red")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_known_payloads_are_harmless(payload: str) -> None:
    """No script, no image, no handler, no link but a plain one; alone and in mid-text."""
    assert_harmless(markdown.render_answer(payload))
    assert_harmless(markdown.render_answer(f"text {payload} text\n\n> {payload}\n\n- {payload}"))


@settings(deadline=None)  # the first example imports the renderer
@given(
    st.lists(
        st.sampled_from(
            [*PAYLOADS, "`", "```", "\n", "\n\n", "$$", "<", "![", "](", "|", "a", "\\"]
        )
    )
)
def test_fuzzed_text_is_harmless(parts: list[str]) -> None:
    """However the pieces are put together."""
    assert_harmless(markdown.render_answer("".join(parts)))


def test_markdown_is_rendered() -> None:
    """Emphasis, code, tables, lists, and links that open elsewhere."""
    rendered = markdown.render_answer(
        "**a** `b`\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n[c](https://d.example)"
    )
    for part in (
        "<strong>a</strong>",
        "<code>b</code>",
        '<td style="text-align:right">1</td>',
        'rel="noopener noreferrer"',
    ):
        assert part in rendered


def test_single_line_breaks_are_kept() -> None:
    """An address or a poem stays on its lines."""
    assert "one<br />\ntwo" in markdown.render_answer("one\ntwo")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("- [ ] call **her**", '<li style="list-style:none">☐ call <strong>her</strong></li>'),
        ("1. [x] done", '<li style="list-style:none">☑ done</li>'),
        ("- [X] done", "☑ done"),
        ("- [x](https://a.example)", ">x</a>"),
        ("- [y] no task", "<li>[y] no task</li>"),
        ("[ ] no list", "<p>[ ] no list</p>"),
    ],
)
def test_tasks_have_a_box(text: str, shown: str) -> None:
    """Only list items that start with brackets are tasks."""
    assert shown in markdown.render_answer(text)


@pytest.mark.parametrize("value", ["1", "-2.5", "$1,200.50", "12 %", "3e-4", "5 kg", "**7**"])
def test_columns_of_numbers_are_aligned_to_the_right(value: str) -> None:
    """Columns of texts are aligned to the left, and an alignment of the model's stays."""
    table = f"| n | v | c |\n|---|---|:-:|\n| a | {value} | 1 |\n| b | – | x |"
    rendered = markdown.render_answer(table)
    sides = re.findall(r'<t[hd] style="text-align:(\w+)">', rendered)
    assert sides == ["left", "right", "center"] * 3


def test_a_huge_table_has_no_style_in_its_cells() -> None:
    """They would make it several times as long."""
    assert "text-align" not in markdown.render_answer(
        "|a" * 900 + "|\n" + "|-" * 900 + "|\n" + "|1\n" * 4
    )


def test_code_is_in_a_box_with_its_language() -> None:
    """One click selects it; the label is text, whatever the model wrote."""
    rendered = markdown.render_answer("```<b>\nx\n```")
    assert ">&lt;b&gt;</div><pre style=" in rendered
    assert "user-select:all" in rendered
    assert "border-bottom" not in markdown.render_answer("```\nx\n```")


def test_the_model_is_a_tag_above_the_answer() -> None:
    """Its name is text: it comes from a service or a user."""
    rendered = markdown.render_answer("$x$ hi", "a/<b>$y$")
    assert rendered.index("a/&lt;b&gt;$y$") < rendered.index("hi")
    assert rendered.count("mathjax_process") == 1
    assert_harmless(rendered)


def test_control_characters_are_taken_out() -> None:
    """An escape sequence must not reach a terminal; tabs and newlines stay."""
    assert markdown.to_plain_text("a\x1b[2Jb\tc\n\x07\x9bd") == "a[2Jb\tc\nd"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a $x_1*y*_2$ b", '<span class="mathjax_process">$x_1*y*_2$</span>'),
        ("$$\n\\frac{a}{b}\n$$", '<div class="mathjax_process">$$\\frac{a}{b}$$</div>'),
        ("so $$a_1$$ is", "$$a_1$$"),
        ("\\(a_1 < b_2\\)", '<span class="mathjax_process">$a_1 &lt; b_2$</span>'),
        ("\\[\nx_1\n\\]", '<div class="mathjax_process">$$x_1$$</div>'),
        ("\\(a $ b\\)", "$a \\$ b$"),
        ("so\n\\[x_1\\]\nis", '<div class="mathjax_process">$$x_1$$</div>'),
        ("- so\n  \\[\n  x_1\n\n  \\]\n- b", '<div class="mathjax_process">$$x_1$$</div>'),
        ("> \\[\n> x_1\n> \\]", '<div class="mathjax_process">$$x_1$$</div>'),
    ],
)
def test_formulas_reach_the_frontend_as_they_were_written(text: str, shown: str) -> None:
    """Underscores and stars in them are no emphasis; either pair of delimiters will do."""
    assert shown in markdown.render_answer(text)


@pytest.mark.parametrize("after", [" (1)", " (only if x > 0)", ".", " where *x* is the speed"])
def test_no_text_after_a_displayed_formula_is_lost(after: str) -> None:
    """The formula is typeset too."""
    rendered = markdown.render_answer(f"\\[E = mc^2\\]{after}\n\nThe end.")
    assert '<div class="mathjax_process">$$E = mc^2$$</div>' in rendered
    assert after.strip(" *").split("*")[0].replace(">", "&gt;") in rendered
    assert "The end." in rendered


def test_brackets_without_an_end_are_text() -> None:
    """Also if there is nothing between them."""
    assert "[x" in markdown.render_answer("a \\[x")
    assert "[" in markdown.render_answer("\\[\n\nx")
    assert "]" in markdown.render_answer("\\[ \\]")


def test_the_end_of_a_formula_is_looked_for_nearby(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a few thousand characters and some lines, so that a hostile text takes linear time."""
    assert "mathjax_process" in markdown.render_answer(f"a \\({'x' * 3_000}\\)")
    assert "mathjax_process" not in markdown.render_answer(f"a \\({'x' * 5_000}\\)")
    lines: list[int] = []
    read = markdown_rules._line

    def count(state: Any, line: int) -> str:
        lines.append(line)
        return read(state, line)

    monkeypatch.setattr(markdown_rules, "_line", count)
    for opening in ("\\[\n", "\\[\n\n"):
        lines.clear()
        markdown.render_answer(opening * 400)
        assert 400 < len(lines) < 2 * 62 * 400


@pytest.mark.parametrize("text", ["It is $5, not $6.", "`$x$`", "\\$5 and \\$6", "```\n$x$\n```"])
def test_dollars_that_are_no_formula_are_not_typeset(text: str) -> None:
    """They stand in what the frontend is told to leave alone."""
    rendered = markdown.render_answer(text)
    assert rendered.startswith('<div class="mathjax_ignore"')
    assert "mathjax_process" not in rendered


@pytest.mark.parametrize(
    "formula",
    ["\\href{javascript:alert(1)}{x}", "\\style{background:url(//evil.example)}{x}", "\\require{html}",
     "\\bbox[background:url(//e)]{x}", "\\def\\a{b}", "\\mmlToken{mi}[href='javascript:1']{x}",
     "\\fcolorbox{red;position:fixed;background:url(//evil.example)}{red}{x}", "\\fcolorbox{red}{red}{x}",
     "\\ce{\\\\fcolorbox{red;position:fixed}{red}{x}}", "\\verb\\ x\\\\style{top:0}{x}",
     "\\ce{\\\\DeclareMathOperator\\alpha{b}}", "\\ce{\\\\definecolor{red}{named}{blue}}", "\\ce{\\\\mathtoolsset{x=1}}",
     "\\class{x}{y}", "\\data{x=1}{y}", "\\csname href\\endcsname{javascript:1}{x}"],
)  # fmt: skip
def test_a_formula_that_could_do_more_is_shown_as_written(formula: str) -> None:
    """It may link, fetch, style or define: it is not typeset."""
    for text in (f"${formula}$", f"$$\n{formula}\n$$", f"\\({formula}\\)"):
        assert "mathjax_process" not in markdown.render_answer(text)


DEFINING = [
    "\\def\\alpha{\\beta}", "\\gdef\\alpha{\\beta}", "\\let\\alpha=\\beta", "\\let\\alpha\\beta",
    "\\newcommand{\\alpha}{\\beta}", "\\renewcommand\\alpha{\\beta}", "\\newcommand*{\\alpha}{\\beta}",
    "\\newenvironment{x}{a}{b}", "\\renewenvironment{matrix}{a}{b}", "\\DeclareMathOperator{\\alpha}{b}",
    "\\DeclarePairedDelimiter\\abs{|}{|}", "\\Newextarrow{\\a}{1,1}{0x2192}", "\\require{physics}",
    "\\setOptions{x=1}", "\\mathtoolsset{x=1}", "\\newtagform{a}{(}{)}", "\\definecolor{red}{rgb}{0,0,1}",
    "\\unicode[x]{65}", "\\label{a}", "\\ref{a}", "\\texttip{a}{b}", "\\toggle{a}{b}\\endtoggle",
    "\\bbox[1px]{x}", "\\cssId{a}{b}", "\\enclose{circle}{x}", "\\somethingNew{x}",
]  # fmt: skip


@pytest.mark.parametrize("command", DEFINING)
@pytest.mark.parametrize(
    "written",
    ["\\\\({}\\\\)", "\\({}\\)", "\\\\[{}\\\\]", "${}$", "$$\n{}\n$$", "\\begin{{matrix}}{}\\end{{matrix}}",
     "$x \\\\ {}$", "$\\\\{}$", "$\\verb\\ x\\{}$", "$\\text{{$ {} $}}$", "$$a$ {} $b$$", "&#92;({}&#92;)", "$a \\\\$ {} $b$"],
)  # fmt: skip
def test_no_text_defines_or_loads_anything(command: str, written: str) -> None:
    """Between whatever delimiters, escaped by Markdown or not: MathJax is told to leave it alone."""
    text, name = written.format(command), re.split(r"[^A-Za-z]", command[1:])[0]
    for shown in (
        markdown.render_answer(text),
        markdown.escape_html(text),
        typesetting.sanitize_table(f"<td>{text}</td>"),
    ):
        assert f"\\{name}" not in _typeset(shown), shown


def _typeset(shown: str) -> str:
    """What MathJax would read of ``shown``."""
    if "mathjax_ignore" not in shown:
        return shown if typesetting.may_contain_formula(shown) else ""
    assert shown.startswith(('<div class="mathjax_ignore"', '<span class="mathjax_ignore"'))
    return " ".join(re.findall(r'class="mathjax_process">(.*?)</(?:span|div)>', shown, re.DOTALL))


@settings(deadline=None)  # the first example imports the renderer
@given(
    st.lists(
        st.sampled_from(
            [
                *DEFINING,
                "$",
                "$$",
                "\\",
                "\\(",
                "\\)",
                "\\\\",
                "{",
                "}",
                "\\text{",
                "x",
                " ",
                "\n",
                "%",
                "`",
                "\\begin{cases}",
                "\\frac",
            ]
        )
    )
)
def test_however_it_is_put_together(parts: list[str]) -> None:
    """What is left to be typeset holds drawing commands alone, and no dollar that would end it."""
    text = "".join(parts)
    for shown in (markdown.render_answer(text), typesetting.sanitize_table(f"<td>{text}</td>")):
        for _, formula in re.findall(
            r'class="mathjax_process">(\$\$?)(.*?)\1</', shown, re.DOTALL
        ):
            formula = unescape(formula)
            tokens = re.findall(r"\\(?:[A-Za-z]+|.|$)|\$", formula, re.DOTALL)
            assert "$" not in tokens
            assert "\\" not in tokens
            assert {
                each[1:] for each in tokens if each[1:].isalpha()
            } <= typesetting.drawing_commands()


@pytest.mark.parametrize(
    "formula",
    ["\\frac{a}{b} \\le \\sum_{i=1}^n x_i", "\\begin{pmatrix}a&b\\\\c&d\\end{pmatrix}", "\\mathbb{R} \\to \\infty",
     "\\color{red}{x}", "\\ce{H2O}", "\\text{if } x \\ne 0", "\\operatorname{softmax}(x)", "a \\quad b \\tag{1}",
     "\\left\\lfloor x \\right\\rfloor", "\\underbrace{a}_{b}", "50\\%", "\\{x\\}", "\\textcolor{blue}{y}"],
)  # fmt: skip
def test_formulas_of_answers_are_typeset(formula: str) -> None:
    """The commands that answers are written in, in all delimiters and in the cells of a table."""
    for text in (f"${formula}$", f"\\({formula}\\)", f"\\[{formula}\\]", f"$$\n{formula}\n$$"):
        assert typesetting.PROCESS in markdown.render_answer(text)
    assert typesetting.PROCESS in typesetting.sanitize_table(f"<td>so ${formula}$ is</td>")


@pytest.mark.parametrize(
    "text", ["costs $5 and $6", "$5-$6", "a$ and b$", "US$ 5 or US$ 6", "`$x$`"]
)
def test_prices_in_tables_are_no_formulas(text: str) -> None:
    """As in answers."""
    shown = typesetting.sanitize_table(f"<table><td>{text}</td></table>")
    assert shown.startswith('<div class="mathjax_ignore">')
    assert text == "`$x$`" or typesetting.PROCESS not in shown


def test_a_table_without_formulas_stays_as_it_is() -> None:
    """Nor is an attribute ever taken for text."""
    assert typesetting.sanitize_table("<td>a & b</td>") == "<td>a & b</td>"
    assert 'title="$x$"' in typesetting.sanitize_table('<td title="$x$">$y$</td>')


TEXT = r"costs $5 and $6 \\(\def\alpha{\beta}\\) and $x^2$"


def assert_guarded(html: str) -> None:
    """No more of `TEXT` than its harmless formula is typeset."""
    assert html.startswith('<div class="mathjax_ignore">')
    assert set(re.findall(r'mathjax_process">(.*?)</span>', html)) <= {"$x^2$"}
    assert "$5 and $6" in html


def test_frames_are_shown_without_definitions(kernel: Kernel) -> None:
    """Of pandas and polars, styled, in whatever cell; and as before once it is unloaded."""
    kernel.run(f"import pandas; text = {TEXT!r}; df = pandas.DataFrame({{text: [text]}})")
    for code in (
        "df",
        "df.head()",
        "df.style",
        "display(df)",
        "import llm_magics as lm\nlm.runs(); df",
    ):
        shown = kernel.run(code)
        assert_guarded(shown.outputs[-1]["data"]["text/html"])
    if importlib.util.find_spec("polars") is not None:
        shown = kernel.run("import polars\npolars.DataFrame({'a': [text]})")
        assert_guarded(shown.outputs[-1]["data"]["text/html"])
    kernel.run("%unload_ext llm_magics")
    assert "mathjax" not in kernel.run("df").outputs[-1]["data"]["text/html"]


@pytest.mark.parametrize("first", ["llm_magics, pandas", "pandas, llm_magics"])
def test_frames_are_guarded_without_the_extension(first: str) -> None:
    """As soon as both are imported, in either order; a printer of the user's own stays."""
    script = f"""
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
import {first}
print(shell.display_formatter.format(pandas.DataFrame({{"a": [{TEXT!r}]}}))[0]["text/html"])
html = shell.display_formatter.formatters["text/html"]
html.for_type(pandas.DataFrame, lambda frame: "mine")
shell.run_line_magic("load_ext", "llm_magics")
print(shell.display_formatter.format(pandas.DataFrame())[0]["text/html"])
"""
    done = run_prepared(script)
    assert_guarded(done.stdout)
    assert done.stdout.endswith("mine\n")


def test_code_has_the_colours_of_the_page() -> None:
    """By JupyterLab's own names of them, so that they follow its theme."""
    rendered = markdown.render_answer("```python\ndef f(x):\n    return 'a' # b\n```")
    for colour, word in (
        ("keyword", "def"),
        ("def", "f"),
        ("string", "&#x27;a&#x27;"),
        ("comment", "# b"),
    ):
        assert re.search(rf"--jp-mirror-editor-{colour}-color,#......\)\">{word}</span>", rendered)


@pytest.mark.parametrize(
    "language", ["", "klingon", "PYTHON", "json", "html", "diff", '"><x', "python {x=1}"]
)
@settings(deadline=None)  # the first example imports the renderer
@given(
    code=st.text(
        alphabet=st.sampled_from(list("<>&\"' \n\tdefclass#{}()[]=:;'\\`0123")), max_size=200
    )
)
def test_code_stays_what_it_is(language: str, code: str) -> None:
    """In any language, known or not: its text is the same, and harmless."""
    code = code.replace("```", "")
    rendered = markdown.render_answer(f"```{language}\n{code}\n```")
    assert_harmless(rendered)
    shown = unescape(re.sub(r"<[^>]*>", "", highlight(code, language)))
    assert shown == code


def test_long_code_is_not_coloured() -> None:
    """A lexer can be slow on text that is made to be so."""
    assert "<span" not in markdown.render_answer("```python\n" + "def f(): pass\n" * 2000 + "```")
