"""Policies of the request pipeline. Each is a file of its own, and none imports another."""
