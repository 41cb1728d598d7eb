"""Wire formats: they convert bytes to values, without access to a socket, a file or a clock."""
