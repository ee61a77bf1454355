"""The client of a service: routing and retries over its replicas."""
