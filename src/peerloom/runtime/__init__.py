"""Stage 6: drives the protocol, in one process or on Ray."""
