"""Serve the simulated model over OpenAI's HTTP API."""
