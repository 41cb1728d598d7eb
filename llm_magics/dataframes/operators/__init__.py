"""Operators over tables: filter, share, join, top-k and aggregate, with statistical guarantees."""
