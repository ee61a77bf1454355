"""The simulated model as a server of OpenAI's protocol."""
