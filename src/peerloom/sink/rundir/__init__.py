"""The run directory and its state between sessions."""
