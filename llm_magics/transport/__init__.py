"""
Bytes to and from a service over HTTP.

A block of an answer is stamped with the time at which it was received, before anybody looks into
it, so that time to first token is the network's and not the parser's.
"""

from llm_magics.transport.service import ByteStream, Transport
from llm_magics.transport.values import Form, KeyHeader, Reply, Timeouts

__all__ = ["ByteStream", "Form", "KeyHeader", "Reply", "Timeouts", "Transport"]
