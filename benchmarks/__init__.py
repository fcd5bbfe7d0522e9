"""Experiments that are too long for tests. Each is run by `python -m benchmarks.NAME` and prints what it measured."""
