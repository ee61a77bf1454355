"""Stage 6: run the protocol, in one process or on Ray."""
