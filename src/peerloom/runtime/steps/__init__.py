"""Execute the steps of tasks: an agent acts, and the workflow picks the next role."""
