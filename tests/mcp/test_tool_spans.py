"""Spans of calls to tools of servers."""

from __future__ import annotations

import pytest

import llm_magics as lm
from tests.mcp.conftest import AddServer
from tests.support.telemetry import configure


def test_a_tool_of_a_server_is_traced(
    add_server: AddServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the user's span, and with an error if the server reports one."""
    add_server(allow=["stock", "fail"])
    telemetry = configure(monkeypatch)
    with telemetry.user_span() as parent:
        lm.ask('shop__stock("cup")', model="echo/echo", mcp=["shop"])
        lm.ask("shop__fail()", model="echo/echo", mcp=["shop"])
    spans = {each.name: each for each in telemetry.spans}
    good, bad = spans["execute_tool shop__stock"], spans["execute_tool shop__fail"]
    for span in (good, bad):
        assert span.parent
        assert span.parent.span_id == parent
        assert span.attributes
        assert span.attributes["gen_ai.tool.type"] == "extension"
    assert "error.type" not in (good.attributes or {})
    assert (bad.attributes or {})["error.type"] == "tool_error"
    assert "shelf" not in bad.to_json()
