"""Sources by format."""
