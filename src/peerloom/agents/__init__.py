"""Stage 4: what the roles do."""
