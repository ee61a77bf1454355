"""Implement the verbs of the command line, one module each; those that start servers are in `serve/`."""
