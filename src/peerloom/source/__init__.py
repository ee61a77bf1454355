"""Sources: they read the input rows."""
