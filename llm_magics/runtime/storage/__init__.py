"""Stored data: answers, vectors, recordings, and the log of all calls."""
