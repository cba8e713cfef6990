"""Plans a job: the cut into stages, and the work, memory and cost of each worker."""
