"""Logit distillation from the original model."""
