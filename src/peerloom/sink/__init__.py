"""Stage 5: where finished tasks are committed."""
