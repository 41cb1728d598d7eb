"""A process of our own, waited for without blocking the loop, and ended when nobody waits."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncGenerator

_POLL_S = 0.1


async def waiting_for(process: subprocess.Popen[bytes]) -> AsyncGenerator[float, None]:
    """Yield the seconds so far until ``process`` has ended; left early, it is killed."""
    started = time.monotonic()
    try:
        while process.poll() is None:
            yield time.monotonic() - started
            await asyncio.sleep(_POLL_S)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
