"""The faces of a report: the terminal and one self-contained page."""
