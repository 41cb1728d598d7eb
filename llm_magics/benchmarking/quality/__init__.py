"""Whether answers are right: scores by rule, by function, and by a model as judge."""
