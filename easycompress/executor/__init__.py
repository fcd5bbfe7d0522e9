"""Applies a plan, guards the floor and keeps a journal."""
