"""Structured pruning on the dependency graph."""
