"""The job service: accepts jobs, queues them, starts their runners on Ray, and reports their state and progress."""
