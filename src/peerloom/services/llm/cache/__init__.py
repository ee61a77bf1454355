"""Cache replies on disk, shared by the peers of a node and by runs; repeated requests cost nothing."""
