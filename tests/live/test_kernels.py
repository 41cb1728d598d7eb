"""Notebooks that share a server and a cache: four real kernels at once, and interrupts."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.support.kernels import Kernel, Result
from tests.support.live import Target, can_see_slots, is_busy

pytestmark = [pytest.mark.live, pytest.mark.kernel]

SETUP = """%load_ext llm_magics
import llm_magics as lm
import pandas as pd
lm.config.cache = True
"""


def started(folder: Path, target: Target, *, watched: bool = False) -> Kernel:
    """A kernel of its own in ``folder``, with the cache of all."""
    own = folder / "kernel"
    own.mkdir(exist_ok=True)
    return Kernel(
        own,
        watched=watched,
        OLLAMA_HOST=str(target.config["base_url"]),
        XDG_CACHE_HOME=str(folder.parent / "cache"),
    )


@pytest.fixture
def kernels(tmp_path: Path, ollama: Target) -> Iterator[list[Kernel]]:
    """Four kernels, each in its own folder."""
    with ExitStack() as stack:
        running = []
        for number in range(4):
            folder = tmp_path / str(number)
            folder.mkdir()
            running.append(stack.enter_context(started(folder, ollama)))
        yield running


def test_four_kernels_share_a_server_and_a_cache(kernels: list[Kernel], ollama: Target) -> None:
    """All are answered, agree on what they have in common, and later pay nothing for it."""
    ask = f"model='ollama/{ollama.chat}', stop=[' '], max_tokens=20, temperature=0, seed=1"  # whole answers are kept

    def work(number: int) -> Result:
        return kernels[number].run(
            SETUP + f"common = lm.ask('Name a colour.', {ask}).text\n"
            f"own = lm.ask('Write of the number {number}.', {ask}).text\n"
            f"frame = pd.DataFrame({{'text': [f'text {{n}}' for n in range({number} * 10, {number} * 10 + 40)]}})\n"
            f"_ = frame.llm.embed('text', model='ollama/{ollama.embedding}')\n"
        )

    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(work, range(4)):
            assert result.status == "ok", result.error
    assert len({kernel.value("common") for kernel in kernels}) == 1
    assert all(kernel.value("own") for kernel in kernels)
    again = kernels[0].run(
        f"own = [lm.ask(f'Write of the number {{n}}.', {ask}) for n in range(4)]\n"
        "sent = len(lm.runs())\n"
        f"vectors = lm.embed([f'text {{n}}' for n in range(70)], model='ollama/{ollama.embedding}')\n"
    )
    assert again.status == "ok", again.error
    assert kernels[0].value("[each.cached for each in own]") == [True] * 4
    assert kernels[0].value("lm.runs().iloc[sent:].cached.all().item()") is True
    assert kernels[0].value("vectors.shape") == (70, 384)


@pytest.mark.parametrize("watched", [False, True])
def test_an_interrupt_stops_the_model(tmp_path: Path, ollama: Target, watched: bool) -> None:
    """What had come is kept, the server is free, and the next cell is answered."""
    folder = tmp_path / "one"
    folder.mkdir()
    model = f"ollama/{ollama.chat} --temperature 0 --seed 1"
    with started(folder, ollama, watched=watched) as kernel:
        kernel.run(SETUP + "from IPython import get_ipython")
        has_begun = False

        def interrupt(result: Result) -> None:
            nonlocal has_begun
            if not has_begun and (watched or "begun" in result.text):
                has_begun = "begun" in result.text or len(result.messages) > 5
                if has_begun:
                    kernel.interrupt()

        code = (
            f"%%llm {model} --max-tokens 1500\nCount from 1 to 1000 with commas: 1, 2, 3, 4, 5, 6,"
            if watched
            else f"stream = lm.stream('Count from 1 to 1000 with commas: 1, 2, 3, 4, 5,', 'ollama/{ollama.chat}', max_tokens=1500)\n"
            "for chunk in stream:\n    print('begun', flush=True)\n"
        )
        result = kernel.run(code, on_output=interrupt)
        assert has_begun
        kept = "_llm" if watched else "stream.response"
        assert kernel.value(f"{kept}.text")
        assert kernel.value(f"{kept}.finish_reason") == "interrupted"
        assert result.status == "error"
        if can_see_slots(ollama):
            assert eventually(lambda: not is_busy(ollama), 60)
        after = kernel.run(
            f"%%llm {model} --max-tokens 8 --temperature 0 --seed 1 -o ans\nName a colour."
        )
        assert after.status == "ok", after.error
        assert kernel.value("ans.text")
