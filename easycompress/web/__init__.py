"""The web page of one machine: give a model, look at the plan, run it, watch it, compare, download."""
