"""Fleets: any number of servers of one model, started, watched, and found by the runs that use them."""
