"""What a call takes on the wire, noted by the transport for whoever has asked for it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Meter:
    """
    Of one call; where it is sent again, the times are those of the last request.

    Attributes:
        sent_at: when the request was handed to the socket, on the clock of `time.perf_counter`;
            ``None`` where nothing was sent over the network.
        connect_s: seconds that a new connection took (name, TCP, TLS), ended by then; 0 where
            one was there.
        headers_s: seconds from sending to the headers of the answer.
        bytes_sent: of bodies.
        bytes_received: of bodies, unpacked.
    """

    sent_at: float | None = None
    connect_s: float = 0.0
    headers_s: float | None = None
    bytes_sent: int = 0
    bytes_received: int = 0


# Set by whoever measures, in the context (task) that makes the call.
METER: ContextVar[Meter | None] = ContextVar("METER", default=None)
