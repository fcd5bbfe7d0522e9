"""The vocabulary: goals, plans, tasks, outcomes and errors. No algorithm lives here, and nothing here needs torch."""
