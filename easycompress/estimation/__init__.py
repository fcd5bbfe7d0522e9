"""Estimates before anything is compressed: what a target would cost in quality, and what a floor can buy."""
