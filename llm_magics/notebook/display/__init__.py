"""How what comes is shown in a cell: answers, columns, thoughts, progress, and the pace of it."""
