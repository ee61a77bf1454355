"""One step of a task: an agent acts, and the workflow chooses the next one."""
