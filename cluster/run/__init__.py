"""One training run: from a job to its run directory, in a terminal or as a runner of the service."""
