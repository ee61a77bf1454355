"""Simulate a model and its provider, reproducibly from a seed."""
