"""Implement the verbs that start servers: `serve` for fleets, and `simulate-llm`."""
