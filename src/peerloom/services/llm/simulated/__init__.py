"""The simulated model: a seeded stand-in for a provider, in process."""
