"""Run members in one process or on Ray."""
