"""The HTTP interfaces of providers, one dialect in each module."""
