"""Implement the subcommands of `peerloom serve`."""
