"""Model text made harmless."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.notebook import inert
from llm_magics.notebook.highlighting import highlighted

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
# The only style that code is given.
COLOUR = r"color:var\(--jp-mirror-editor-[a-z]+-color,#[0-9a-f]{6}\)"
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


class Reader(HTMLParser):
    """Collects the tags and attributes that a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


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
        if tag in ("div", "span"):
            assert attributes.get("class") in ("mathjax_ignore", "mathjax_process")
        assert set(attributes) <= ATTRIBUTES
        href = attributes.get("href")
        assert href is None or href.lower().startswith(("http://", "https://", "mailto:", "#"))
        assert attributes.get("style") in (
            None,
            *(f"text-align:{s}" for s in ("left", "right", "center")),
        )


@pytest.mark.parametrize("payload", PAYLOADS)
def test_known_payloads_are_harmless(payload: str) -> None:
    """No script, no image, no handler, no link but a plain one; alone and in mid-text."""
    assert_harmless(inert.html(payload))
    assert_harmless(inert.html(f"text {payload} text\n\n> {payload}\n\n- {payload}"))


@given(
    st.lists(
        st.sampled_from(
            [*PAYLOADS, "`", "```", "\n", "\n\n", "$$", "<", "![", "](", "|", "a", "\\"]
        )
    )
)
def test_fuzzed_text_is_harmless(parts: list[str]) -> None:
    """However the pieces are put together."""
    assert_harmless(inert.html("".join(parts)))


def test_markdown_is_rendered() -> None:
    """Emphasis, code, tables, lists, and links that open elsewhere."""
    rendered = inert.html("**a** `b`\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n[c](https://d.example)")
    for part in (
        "<strong>a</strong>",
        "<code>b</code>",
        "<td>1</td>",
        'rel="noopener noreferrer"',
    ):
        assert part in rendered


def test_control_characters_are_taken_out() -> None:
    """An escape sequence must not reach a terminal; tabs and newlines stay."""
    assert inert.plain("a\x1b[2Jb\tc\n\x07\x9bd") == "a[2Jb\tc\nd"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a $x_1*y*_2$ b", '<span class="mathjax_process">$x_1*y*_2$</span>'),
        ("$$\n\\frac{a}{b}\n$$", '<div class="mathjax_process">$$\\frac{a}{b}$$</div>'),
        ("so $$a_1$$ is", "$$a_1$$"),
        ("\\(a_1 < b_2\\)", '<span class="mathjax_process">$a_1 &lt; b_2$</span>'),
        ("\\[\nx_1\n\\]", '<div class="mathjax_process">$$x_1$$</div>'),
        ("\\(a $ b\\)", "$a \\$ b$"),
    ],
)
def test_formulas_reach_the_frontend_as_they_were_written(text: str, shown: str) -> None:
    """Underscores and stars in them are no emphasis; either pair of delimiters will do."""
    assert shown in inert.html(text)


@pytest.mark.parametrize("text", ["It is $5, not $6.", "`$x$`", "\\$5 and \\$6", "```\n$x$\n```"])
def test_dollars_that_are_no_formula_are_not_typeset(text: str) -> None:
    """They stand in what the frontend is told to leave alone."""
    rendered = inert.html(text)
    assert rendered.startswith('<div class="mathjax_ignore">')
    assert "mathjax_process" not in rendered


@pytest.mark.parametrize(
    "formula",
    ["\\href{javascript:alert(1)}{x}", "\\style{background:url(//evil.example)}{x}", "\\require{html}",
     "\\bbox[background:url(//e)]{x}", "\\def\\a{b}", "\\mmlToken{mi}[href='javascript:1']{x}",
     "\\class{x}{y}", "\\data{x=1}{y}", "\\csname href\\endcsname{javascript:1}{x}"],
)  # fmt: skip
def test_a_formula_that_could_do_more_is_shown_as_written(formula: str) -> None:
    """It may link, fetch, style or define: it is not typeset."""
    for text in (f"${formula}$", f"$$\n{formula}\n$$", f"\\({formula}\\)"):
        assert "mathjax_process" not in inert.html(text)


def test_code_has_the_colours_of_the_page() -> None:
    """By JupyterLab's own names of them, so that they follow its theme."""
    rendered = inert.html("```python\ndef f(x):\n    return 'a' # b\n```")
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
@given(
    code=st.text(
        alphabet=st.sampled_from(list("<>&\"' \n\tdefclass#{}()[]=:;'\\`0123")), max_size=200
    )
)
def test_code_stays_what_it_is(language: str, code: str) -> None:
    """In any language, known or not: its text is the same, and harmless."""
    code = code.replace("```", "")
    rendered = inert.html(f"```{language}\n{code}\n```")
    assert_harmless(rendered)
    shown = unescape(re.sub(r"<[^>]*>", "", highlighted(code, language)))
    assert shown == code


def test_long_code_is_not_coloured() -> None:
    """A lexer can be slow on text that is made to be so."""
    assert "<span" not in inert.html("```python\n" + "def f(): pass\n" * 2000 + "```")
