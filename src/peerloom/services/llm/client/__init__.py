"""The client of a service: routing, retries and hedging over its replicas."""
