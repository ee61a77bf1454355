"""Replies kept on disk, shared by the peers of a node and by runs: the exact request again costs nothing."""
