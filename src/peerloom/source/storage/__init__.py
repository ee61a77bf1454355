"""Local and remote files, and their lines."""
