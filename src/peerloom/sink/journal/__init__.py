"""Record the turns and calls of tasks in flight, so that a readmitted task continues where it was."""
