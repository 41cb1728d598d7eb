"""
The child process that runs llama.cpp's servers until its parent ends.

It runs as a script and imports only xllamacpp, so that it starts fast. The first line on standard
input specifies what to load. The answer is one JSON line with the servers' addresses or an error.
The process ends when standard input closes or its parent has ended, for any reason.
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
    """Load the model, write the answer, and serve until standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # interrupts are for the kernel's cell
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
    sys.stdin.read()  # until the parent closes it or ends
    os._exit(0)  # no clean-up is needed, and native threads could delay it


def end_with(parent: int) -> None:
    """End this process when its parent has ended: a fork of the parent may hold our input open."""
    while os.name != "posix" or os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(0)


def serve(spec: dict) -> str:  # type: ignore[type-arg]
    """Load the model and return the address of its server."""
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
    params.ctx_shift = False  # refuse text beyond the context, do not cut it
    params.embedding = spec["embeddings"]
    if spec["embeddings"]:
        # For short texts, attention is faster without flash attention.
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
