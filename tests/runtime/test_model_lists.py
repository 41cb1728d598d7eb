"""What models there are: asked at once, told again while somebody is slow."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics.runtime import model_list_cache
from llm_magics.runtime.session import session
from tests.conftest import eventually
from tests.support.servers import servers
from tests.support.serving import Asked, Says


def listing(*names: str, delay_s: float = 0) -> Says:
    """A list of models."""
    body = json.dumps({"data": [{"id": name} for name in names]}).encode()
    return Says([body], content_type="application/json", delay_s=delay_s)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is slow is waited for a moment only."""
    monkeypatch.setattr(model_list_cache, "_FIRST_TIMEOUT_S", 0.4)
    monkeypatch.setattr(model_list_cache, "_REFRESH_TIMEOUT_S", 0.1)


def growing(answers: threading.Event) -> Callable[[Asked], Says]:
    """A server with one more model each time; the second list waits for ``answers``."""
    names: list[str] = []

    def answer(asked: Asked) -> Says:
        names.append(f"m{len(names)}")
        says = listing(*names)
        if len(names) == 2:
            says.once = answers.is_set
        return says

    return answer


@pytest.mark.usefixtures("impatient")
def test_who_is_slow_is_not_waited_for() -> None:
    """What was told last counts meanwhile, and the slow answer does the next time."""
    answers = threading.Event()
    with servers(one=growing(answers)) as running:
        assert lm.models("one").model.tolist() == ["one/m0"]
        session.listings._known["one"] = (*session.listings._known["one"][:1], 0.0, session.listings._known["one"][2])  # fmt: skip
        assert lm.models("one").model.tolist() == ["one/m0"]
        answers.set()
        assert eventually(lambda: len(lm.models("one")) == 2, 30)
        assert lm.models("one").model.tolist() == ["one/m0", "one/m1"]
        assert len(running["one"].asked) == 2


@pytest.mark.usefixtures("impatient")
def test_who_never_answers_holds_nobody_up() -> None:
    """The others are there; asked for alone, it is an error that says so."""
    with servers(one=Says(hang=True), two=listing("m")):
        with pytest.warns(UserWarning, match="one"):
            found = lm.models()
        assert "two/m" in set(found.model)
        with pytest.raises(errors.ConnectionError, match="one"):
            lm.models("one")


@pytest.mark.usefixtures("impatient")
def test_a_provider_set_up_anew_is_asked_anew() -> None:
    """Nobody is told of the models of another server, nor waits for it."""
    with servers(one=Says(hang=True)), pytest.raises(errors.ConnectionError):
        lm.models("one")
    for name in ("a", "b"):
        with servers(one=listing(name)):
            assert lm.models("one").model.tolist() == [f"one/{name}"]
            assert lm.models("one/").provider.tolist() == ["one"]


def test_several_who_ask_at_once_ask_once() -> None:
    """The list is fetched once for all of them."""
    import asyncio

    async def many() -> list[int]:
        return [len(each) for each in await asyncio.gather(*(lm.amodels("one") for _ in range(9)))]

    with servers(one=listing("a", "b", delay_s=0.1)) as running:
        assert asyncio.run(many()) == [2] * 9
        assert len(running["one"].asked) == 1
