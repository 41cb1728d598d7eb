"""Batch jobs: a journal of them, and the protocol that submits each request once."""
