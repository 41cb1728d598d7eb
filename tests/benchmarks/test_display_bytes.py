"""What a live answer costs on the wire. Exact: the clock is virtual."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_magics.notebook.display.answer import LiveDisplay
from tests.benchmarks.conftest import Record

TOKENS_PER_S = 80

PARAGRAPH = (
    "A notebook holds **code**, text and pictures in one place, so that an analysis can be "
    "read from top to bottom. Each cell keeps what it showed; run again, it shows it anew, "
    "and [the documentation](https://jupyter.org) says how `display_id` makes an output "
    "change in place instead of growing the page.\n\n"
)
ORDINARY = (
    "## A section\n\n"
    + PARAGRAPH * 2
    + "- first, a point with *emphasis*\n- second, `code` in it\n- third, plain\n\n"
    + PARAGRAPH
    + "```python\nfor name in names:\n    print(name.title())\n```\n\n"
    + "| model | tokens/s |\n|---|---|\n| small | 120 |\n| large | 14 |\n\n"
)

# What ipykernel puts around the content of a message: headers, parent header, signature.
ENVELOPE = 700


class Wire:
    """Counts the bytes that a front end would be sent, and the pauses between them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.bytes = 0
        self.sent_at = [0.0]

    def clock(self) -> float:
        return self.now

    def publish(self, **content: Any) -> None:
        self.bytes += len(json.dumps(content)) + ENVELOPE
        self.sent_at.append(self.now)

    @property
    def longest_pause_s(self) -> float:
        pairs = zip(self.sent_at, [*self.sent_at[1:], self.now], strict=True)
        return max(after - before for before, after in pairs)


def tokens(count: int) -> list[str]:
    """So many tokens of ordinary Markdown, 5.4 characters each on average."""
    text = ORDINARY * (1 + count * 6 // len(ORDINARY))
    sizes = [3, 5, 6, 7, 6]
    made, at = [], 0
    for n in range(count):
        size = sizes[n % len(sizes)]
        made.append(text[at : at + size])
        at += size
    return made


@pytest.mark.parametrize("speed", [10, 40, TOKENS_PER_S, 1000])
@pytest.mark.parametrize("count", [500, 2_000, 8_000, 16_000])
def test_bytes_stay_linear_and_pauses_short(count: int, speed: int, record: Record) -> None:
    """At most 25 times the text at any speed; no pause over half a second at 80 tokens/s."""
    wire = Wire()
    answer = tokens(count)
    with LiveDisplay(wire.publish, clock=wire.clock) as display:
        for token in answer:
            wire.now += 1 / speed
            display.write(token)
    ratio = wire.bytes / len("".join(answer))
    assert ratio <= 25
    record(
        f"live display, {count:6,} tokens at {speed:5,}/s",
        f"{ratio:4.1f} x text, longest pause {wire.longest_pause_s:.2f} s",
        "at most 25 x" + (", 0.5 s" if speed == TOKENS_PER_S else ""),
    )
    if speed == TOKENS_PER_S:
        assert wire.longest_pause_s <= 0.5
