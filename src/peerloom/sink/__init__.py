"""Commit finished tasks to the run directory, and read them back (stage 5)."""
