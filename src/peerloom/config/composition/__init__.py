"""Compose groups, files and overrides to one plain dictionary."""
