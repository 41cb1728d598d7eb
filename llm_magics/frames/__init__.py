"""Columns of text into columns of vectors. The only rooms, with their kin, that need pandas."""
