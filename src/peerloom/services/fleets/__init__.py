"""Fleets: start, supervise and find groups of servers that serve one model."""
