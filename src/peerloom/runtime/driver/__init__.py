"""Drive a run: start its members, watch them, and keep the run directory consistent."""
