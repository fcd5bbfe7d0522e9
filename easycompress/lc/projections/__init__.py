"""C steps: each file states the problems that it solves."""
