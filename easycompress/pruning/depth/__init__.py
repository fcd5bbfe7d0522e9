"""Depth pruning: whole residual blocks go."""
