"""Connect members to each other."""
