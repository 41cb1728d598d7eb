"""Spans, metrics and events of calls, in OpenTelemetry's conventions for generative AI."""
