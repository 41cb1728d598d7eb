"""The only import of httpx: its successor has the same interface, and takes its place here."""

import httpx as http

__all__ = ["http"]
