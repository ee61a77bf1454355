"""Claim the run directory, and keep its state between sessions."""
