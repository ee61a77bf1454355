"""The journal: turns and calls of tasks in flight, so that what is admitted again goes on where it was."""
