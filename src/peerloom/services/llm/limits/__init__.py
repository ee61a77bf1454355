"""Limits and budget of a whole run: leases from one place in the driver, spent and settled in the peers."""
