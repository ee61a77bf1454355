"""Enforce the limits and budget of a run: the driver grants quota, and peers spend and settle it."""
