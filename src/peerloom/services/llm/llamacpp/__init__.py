"""The embedded model: llama.cpp servers, and their weights."""
