"""Export committed rows to one file for other programs."""
