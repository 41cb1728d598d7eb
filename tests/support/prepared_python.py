"""
A Python that has imported other packages, and a fork of it for each program.

A fresh Python takes most of its time for pandas and other packages. In a fork of a prepared one
they are in memory, and nothing of llm_magics is. ``pandas`` and ``IPython`` themselves have to be
imported all the same, from their parts that are there: this package waits for their import. A test
of which modules are loaded starts a Python of its own.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import llm_magics
from tests.support.nested import plain_environment

_SERVER = """
import atexit, gc, json, os, sys, tempfile, threading, traceback, types, warnings
import asyncio, concurrent.futures.thread, email.message, sqlite3, uuid
import docstring_parser, h11, httpx, jinja2, markdown_it, numpy, pandas, PIL.Image, platformdirs
import pydantic, pygments.formatters, pygments.lexers, tabulate, yaml
import IPython.core.interactiveshell

assert not any(name.partition(".")[0] == "llm_magics" for name in sys.modules)
imported = {name: sys.modules.pop(name) for name in ("pandas", "IPython")}
gc.collect()
gc.freeze()  # a collection in a fork would copy all memory
# From Python 3.12 on. The threads are those of numpy's linear algebra, which starts them anew.
warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)

def run(program, arguments, folder, environment, strict, has_pandas, stdout, stderr):
    os.dup2(stdout.fileno(), 1)
    os.dup2(stderr.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    if has_pandas:
        sys.modules.update(imported)
    if strict:
        warnings.simplefilter("error")
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        exec(compile(program, "<string>", "exec"), vars(main))
    except SystemExit as error:
        return error.code
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

for line in sys.stdin:
    with tempfile.TemporaryFile("w+b") as stdout, tempfile.TemporaryFile("w+b") as stderr:
        if (child := os.fork()) == 0:
            try:
                code = run(**json.loads(line), stdout=stdout, stderr=stderr)
                threading._shutdown()
                atexit._run_exitfuncs()
                sys.stdout.flush()
                sys.stderr.flush()
            except BaseException:
                traceback.print_exc()
                code = 1
            os._exit(code if isinstance(code, int) else bool(code))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = []
        for file in (stdout, stderr):
            file.seek(0)
            said.append(file.read().decode())
    print(json.dumps([code, *said]), flush=True)
"""


@cache
def _server() -> subprocess.Popen[str]:
    """Start the prepared Python; it ends with this process, whose end of the pipe then closes."""
    path = [str(Path(llm_magics.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        cwd="/",
        env=plain_environment() | {"PYTHONPATH": os.pathsep.join(filter(None, path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    atexit.register(server.communicate)
    return server


def run_prepared(
    program: str,
    *arguments: str,
    environment: Mapping[str, str] = os.environ,
    strict: bool = False,
    has_pandas: bool = False,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """
    Run ``program`` to its end in a fork, as ``python -c`` would, in the folder of this process.

    A ``strict`` program raises its warnings. With ``has_pandas`` pandas and IPython are imported at
    its start. It is for one thread of the tests.

    Raises:
        AssertionError: With ``check``: it failed; with what it wrote.
    """
    server = _server()
    assert server.stdin
    assert server.stdout
    order = {
        "program": program,
        "arguments": arguments,
        "folder": str(Path.cwd()),
        "environment": dict(environment),
        "strict": strict,
        "has_pandas": has_pandas,
    }
    print(json.dumps(order), file=server.stdin, flush=True)
    done = subprocess.CompletedProcess(list(arguments), *json.loads(server.stdout.readline()))
    assert done.returncode == 0 or not check, done.stderr
    return done
