"""Models behind HTTP that others run: the services, and the calls to one replica."""
