"""The training loop, the port to the workers, and the search for the cause of a failure."""
