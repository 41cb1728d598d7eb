"""Benchmarks of evaluations."""
