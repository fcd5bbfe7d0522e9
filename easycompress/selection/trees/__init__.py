"""The decision trees, one file a category: constants, rules, then the tree as a literal."""
