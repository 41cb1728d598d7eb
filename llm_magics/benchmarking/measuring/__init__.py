"""One call measured: stamps, the figures made of them, and the row it becomes."""
