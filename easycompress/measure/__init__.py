"""Numbers about a model, each read from the real file or from a real run."""
