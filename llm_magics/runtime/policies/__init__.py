"""Policies of the request pipeline, one per file; none imports another."""
