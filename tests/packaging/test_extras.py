"""Each extra, alone in a fresh environment: it brings what it is for."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.packaging.environments import ROOT, made, ran, said, torch_without_gpu

EXTRAS = set(
    tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
)

VECTORS = 'import llm_magics as lm, pandas as pd\ndf = pd.DataFrame({"text": ["a b", "b c", "c d"] * 4})\n'
USES = {
    "local": """
import llm_magics as lm
assert lm.ask("Say hello.", model="local/smollm2-135m", max_tokens=3).usage.output_tokens == 3
assert lm.embed(["a"], model="local/minilm-l6-v2").shape == (1, 384)
""",
    "mcp": """
import sys
from pathlib import Path

Path("server.py").write_text('''
from mcp.server import MCPServer
server = MCPServer("s")
@server.tool()
def double(number: int) -> int:
    return 2 * number
server.run("stdio")
''')
import llm_magics as lm
lm.config.mcp = {"s": {"command": [sys.executable, "server.py"], "allow": ["double"]}}
assert lm.ask("s__double(21)", model="echo/echo", mcp="s").text.split()[0] == "42"
""",
    "lab": "import jupyterlab, jscatter, matplotlib, scipy, sklearn, pyarrow, dask.dataframe",
    "hf": """
from llm_magics.providers import create_provider
import asyncio
assert asyncio.run(create_provider("huggingface-local").initialize())
import gguf, transformers
""",
    "prices": """
from llm_magics.runtime.pricing import PriceSource, listed_cost_usd
from llm_magics.types import Usage
assert listed_cost_usd(PriceSource("openai"), "gpt-4o-mini", Usage(1000, 1000)) > 0
""",
    "plots": VECTORS
    + 'df.llm.embed("text", model="echo/echo").llm.plot(clusters=2).figure().savefig("x.png")',
    "map": VECTORS
    + """
m = df.llm.embed("text", model="echo/echo").llm.map(clusters=2)
from llm_magics.dataframes.map_widget import MapWidget
MapWidget(m.plot, m._selected, m.search)
assert len(m.search([1.0] * 64, 3)) == 3
""",
    "bench": """
import llm_magics as lm
said = [f"word {n}" for n in range(12)]
runs = lm.compare(said, ["echo/echo", "echo/lorem"], expected=said, score="exact")
assert "better" in runs.differences().verdict.iloc[0]
runs.plot_wins()
runs.to_parquet("x.parquet")
""",
    "dask": """
import dask.dataframe as dd, pandas as pd, llm_magics as lm
frame = dd.from_pandas(pd.DataFrame({"text": ["a", "b"]}), npartitions=2)
assert len(frame.llm.embed("text", model="echo/echo").compute(scheduler="threads")) == 2
""",
    "operators": """
import pandas as pd
import llm_magics as lm
frame = pd.DataFrame({"text": [f"{n % 7} is {n % 5}" for n in range(300)]})
frame["label"] = frame.text.str.contains("3")
statement = "{{ text }} names a three"
found = frame.llm.filter(statement, accuracy=0.9, oracle="label")
assert found.llm.report.proxy == "keywords"
assert len(frame.llm.share(statement, oracle="label", labels=60)) == 1
""",
    "index": VECTORS
    + 'assert len(lm.index(df.llm.embed("text", model="echo/echo").vector)) == 12',
    "keyring": "import keyring, llm_magics.settings.credentials",
    "entra": """
from azure.identity import DefaultAzureCredential
from llm_magics.providers.cloud_tokens import create_fetcher
create_fetcher("entra", "")
""",
    "vertex": """
import google.auth.transport.requests
from llm_magics.providers.cloud_tokens import create_fetcher
create_fetcher("vertex", "")
""",
    "aws": """
import os
os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "eu-west-1"}
from llm_magics.providers.cloud_tokens import create_fetcher
assert create_fetcher("aws", "")(False)[0].startswith("bedrock-api-key-")
""",
    "repair": """
import llm_magics as lm, warnings
warnings.simplefilter("ignore")
assert lm.ask("{'a': 1,}", model="echo/echo").json(repair=True) == {"a": 1}
""",
    "documents": """
import llm_magics as lm
from llm_magics.documents import PDF, Document
from llm_magics.runtime.document_text import has_pdf_reader
import mammoth
assert has_pdf_reader()
""",
    "otel": """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import llm_magics as lm
spans = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(spans))
lm.ask("hello", model="echo/echo")
assert [each.name for each in spans.get_finished_spans()] == ["chat echo"]
""",
    "docs": "import myst_nb, pydata_sphinx_theme, sphinx",
    "notebooks": "import jupyterlab, matplotlib, scipy, sklearn, dask.dataframe, nbval, xllamacpp",
}


def test_every_extra_is_tested() -> None:
    """But for those of the tests themselves."""
    assert set(USES) == EXTRAS - {"test", "peers"}


@pytest.mark.parametrize("extra", sorted(USES))
def test_an_extra_alone(wheel: Path, tmp_path: Path, extra: str) -> None:
    """What it is for works, and what it brought goes together."""
    more = [torch_without_gpu()] if extra == "hf" else []
    python = made(tmp_path / "env", f"jupyter-llm-magics[{extra}] @ {wheel.as_uri()}", *more)
    said(python, USES[extra], tmp_path, XDG_CONFIG_HOME=str(tmp_path / "config"))
    if extra == "lab":
        assert ran([python, "-m", "jupyterlab", "--version"], tmp_path)
