"""OpenAI's chat completions as bytes: requests, replies, and the many forms of failures."""
