"""What measurements say: summaries, tests of differences, other tools' figures, reports."""
