"""Sources without an end, whose rows are recorded before they are used."""
