"""The calls that the public functions and magics make, and what they share."""
