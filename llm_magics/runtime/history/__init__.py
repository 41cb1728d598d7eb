"""The history of the calls of all kernels, in one SQLite file."""
