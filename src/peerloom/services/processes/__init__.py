"""Server processes: started, kept alive, and ended with all that they have started."""
