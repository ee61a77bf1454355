"""Describe programs, so that versions of them can be told apart and compared."""
