"""The members of a run: feeders, peers and sinks, each driving one state machine."""
