"""Models on servers that Peerloom does not start: the services, and the HTTP backend of one replica."""
