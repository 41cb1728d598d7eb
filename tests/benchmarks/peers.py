"""
What a vector of 1,536 numbers costs with those whom people would use instead, in turns. As JSON.

The openai client is measured in `tests.benchmarks.embedding`.

Each is used at its best: batches of 512, no retries, and LangChain without its own counting of
tokens. openaivec cannot do without a tokenizer that it fetches from the net: here it gets one of
bytes, which is faster. Each is measured to what it gives its user, a list, a column or an array.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec

import openai
import pandas as pd

import llm_magics as lm
from tests.benchmarks.embedding import BATCH, ROWS, ours, texts
from tests.benchmarks.rounds import best_of


def langchain(url: str) -> Callable[[], None]:
    """``OpenAIEmbeddings``."""
    from langchain_openai import OpenAIEmbeddings
    from pydantic import SecretStr

    embeddings = OpenAIEmbeddings(
        model="m",
        base_url=f"{url}/v1",
        api_key=SecretStr("none"),
        chunk_size=BATCH,
        max_retries=0,
        check_embedding_ctx_length=False,
    )

    def read() -> None:
        assert len(embeddings.embed_documents(texts(ROWS))) == ROWS

    return read


def openaivec(url: str) -> Callable[[], None]:
    """``series.ai.embeddings``."""
    import tiktoken

    of_bytes = tiktoken.Encoding(
        "bytes",
        pat_str=r"\S+|\s+",
        mergeable_ranks={bytes([each]): each for each in range(256)},
        special_tokens={},
    )
    tiktoken.get_encoding = lambda name: of_bytes
    tiktoken.encoding_for_model = lambda name: of_bytes
    from openaivec import pandas_ext

    pandas_ext.set_client(openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0))
    pandas_ext.set_embeddings_model("m")

    def read() -> None:
        column = pd.Series(texts(ROWS)).ai.embeddings(batch_size=BATCH, show_progress=False)
        assert len(column) == ROWS

    return read


def main(url: str) -> None:
    """Measure all that are installed."""
    lm.config.vectors = "off"
    lm.config.providers = {"fast": {"type": "openai", "base_url": f"{url}/v1", "api_key": "none"}}
    readers: dict[str, Callable[[], object]] = {"ours": ours}
    for name, package, make in (
        ("LangChain", "langchain_openai", langchain),
        ("openaivec", "openaivec", openaivec),
    ):
        if find_spec(package) is not None:
            readers[name] = make(url)
    best = best_of(readers, is_rough=True)  # they take several times as long
    told = {name: seconds / ROWS for name, seconds in best.items()}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
