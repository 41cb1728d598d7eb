"""
A receiver of OpenTelemetry's protocol (OTLP over HTTP) as a process of its own.

It prints its port, and then each request as one line of JSON. It is strict: a body that is not a
valid message of the protocol, or that has fields the protocol does not know, is refused.
"""

from __future__ import annotations

import gzip
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

REQUESTS = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}


class Receiver(BaseHTTPRequestHandler):
    """Answers one request."""

    def do_POST(self) -> None:
        """Print what was sent; 400 if it is not valid."""
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        message = REQUESTS[self.path]()
        try:
            message.ParseFromString(body)
            is_known = not len(UnknownFieldSet(message)) and message.SerializeToString()
        except DecodeError:
            is_known = False
        self.send_response(200 if is_known else 400)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()
        if is_known:
            said = {"path": self.path, "message": MessageToDict(message)}
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()

    def log_message(self, *_: object) -> None:
        """Write no log."""


if __name__ == "__main__":
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
