"""One training loop, for recovery, distillation and whatever else has to learn."""
