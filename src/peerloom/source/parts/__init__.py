"""Parts of a source, in memory or of tables."""
