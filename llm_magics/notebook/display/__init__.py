"""Display of answers and progress in a cell."""
