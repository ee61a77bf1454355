"""One file for each provider's HTTP interface."""
