"""Leases: the resources of a service that tasks hold, as state machines without I/O."""
