"""Text and streams of terminals."""
