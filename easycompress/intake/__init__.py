"""What the user has (a model, data, functions of their own) becomes a task."""
