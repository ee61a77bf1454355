"""Synthetic training data from many LLM agents at once, peer to peer."""
