"""Define the sections of the configuration."""
