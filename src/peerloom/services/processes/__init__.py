"""Server processes: start them, keep them alive, and end them with all their descendants."""
