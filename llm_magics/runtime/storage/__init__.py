"""What is stored: answers, vectors, recordings, and the log of all calls."""
