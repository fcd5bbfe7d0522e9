"""A model and its codes -> files, and back."""
