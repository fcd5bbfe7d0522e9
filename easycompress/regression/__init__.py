"""A later model or result against a baseline report: what got worse, and by how much."""
