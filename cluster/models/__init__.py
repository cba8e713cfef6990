"""Models in the layouts of other programs: read as a job with weights, and written."""
