"""The driver of a run: starts members, watches them, and keeps the run directory consistent."""
