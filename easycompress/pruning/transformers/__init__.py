"""Transformers pruned by what they are made of: attention heads and feed-forward neurons."""
