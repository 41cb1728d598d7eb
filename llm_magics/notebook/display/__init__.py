"""Display of answers, columns, frames and progress in a cell."""
