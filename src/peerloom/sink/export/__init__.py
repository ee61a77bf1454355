"""Committed rows as one file for other programs."""
