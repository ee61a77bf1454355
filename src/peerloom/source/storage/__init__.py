"""Files and streams that sources read."""
