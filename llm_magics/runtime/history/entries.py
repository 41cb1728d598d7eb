"""
Entries of the history: one call, with its prompt and answer, as a line of JSON.

The line is written before the call returns, so that a kernel that is killed afterwards has stored
it. It contains no keys, headers, pictures or audio; these are stored as digests.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from llm_magics.citations import Citation, Search
from llm_magics.runtime.response import Response
from llm_magics.runtime.storage.run_log import Run
from llm_magics.runtime.storage.serialization import (
    chat_request,
    decode_answer,
    encode_answer,
)
from llm_magics.secrets import scrub
from llm_magics.types import ChatMessage, ModelParameters, ModelResponse, StreamChunk, ToolCall

