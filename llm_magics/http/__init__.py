"""HTTP connections to a service: its address, key and timeouts, with httpx."""

from llm_magics.http.bodies import Form, StreamBody
from llm_magics.http.client import KeyHeader, Timeouts, Transport
from llm_magics.http.responses import BodyLimits, ByteStream, Reply, find_request_id
from llm_magics.http.tokens import Token, TokenSource

__all__ = [
    "BodyLimits",
    "ByteStream",
    "Form",
    "KeyHeader",
    "Reply",
    "StreamBody",
    "Timeouts",
    "Token",
    "TokenSource",
    "Transport",
    "find_request_id",
]
