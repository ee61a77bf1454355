"""Readers of each input format."""
