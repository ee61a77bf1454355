"""Run the members of a run: feeders, peers, and sinks, each with one state machine."""
