"""Run asynchronous work from ordinary functions, and several tasks at the same time."""
