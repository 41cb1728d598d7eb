"""
HTTP/1.1 over plain sockets: what services on this machine and in this house speak.

h11 writes requests and reads heads; bodies are cut out of their transfer here, all that has come
in at once, and not a piece for each token: that is what most of a streamed token's cost was.
No TLS, no proxy, no redirects.
"""

from llm_magics.plain_http.exchange import (
    Answer,
    Body,
    PlainHTTP,
    Request,
    UnreachableError,
    Waits,
)
from llm_magics.plain_http.framing import ProtocolError
from llm_magics.plain_http.sockets import are_possible

__all__ = [
    "Answer",
    "Body",
    "PlainHTTP",
    "ProtocolError",
    "Request",
    "UnreachableError",
    "Waits",
    "are_possible",
]
