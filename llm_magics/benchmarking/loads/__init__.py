"""How a service is loaded: so many at once or so many a second, which requests, in which order."""
