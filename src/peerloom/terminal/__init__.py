"""Make text safe for terminals, and standard streams usable."""
