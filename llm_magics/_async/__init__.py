"""Waiting for asynchronous work from ordinary functions, and running several tasks at once."""
