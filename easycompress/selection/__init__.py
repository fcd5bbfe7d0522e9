"""From facts to a plan: heuristics, decision trees with named rules, and their explanation."""
