"""Encode and decode OpenAI's chat completions: requests, replies and errors."""
