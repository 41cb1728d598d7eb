"""
The engine's own process: llama.cpp's servers, for as long as their parent lives.

Run as a script with nothing imported but xllamacpp, so that it starts fast. Its first line on
standard input says what to load; it answers with one JSON line, their addresses or why it failed.
It ends when standard input closes or its parent is gone, for whatever reason.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

POLL_S = 1.0


def main() -> None:
    """Load, answer, and serve until the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Interrupt is for the kernel's cell
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # llama.cpp logs to stdout too; only the answer may go there
    spec = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    try:
        outcome: dict[str, object] = {"addresses": [serve(spec) for _ in range(spec["servers"])]}
    except Exception as error:
        outcome = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(outcome), file=answer, flush=True)
    if "error" in outcome:
        os._exit(1)
    sys.stdin.read()  # until the parent closes it, by will or by dying
    os._exit(0)  # no clean-up is needed, and native threads could hold it up


def end_with(parent: int) -> None:
    """End when the parent has: a fork of it may hold our standard input open."""
    while os.name != "posix" or os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(0)


def serve(spec: dict) -> str:  # type: ignore[type-arg]
    """Load the model and return the address it is served at."""
    if spec["packages"] and spec["packages"] not in sys.path:
        sys.path.append(spec["packages"])
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = spec["path"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [spec["key"]]
    params.n_ctx = spec["context"]
    params.n_parallel = 1
    params.ctx_shift = False  # what is longer than the context is refused, not cut
    params.embedding = spec["embeddings"]
    if spec["embeddings"]:
        # Attention over a short text is a small product, which takes longer in this form.
        off = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.flash_attn_type = off
    params.cpuparams.n_threads = spec["threads"]
    params.cpuparams_batch.n_threads = spec["threads"]
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = spec["verbosity"]
    server = xllamacpp.Server(params)
    servers.append(server)
    return str(server.listening_address)


# References that keep the servers running.
servers: list[object] = []

if __name__ == "__main__":
    main()
