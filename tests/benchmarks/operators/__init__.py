"""Measurements of the operators over tables: calls, misses and widths of intervals."""
