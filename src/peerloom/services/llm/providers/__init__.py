"""The HTTP interfaces of providers, one module each."""
