"""The job service: takes jobs in, queues them, starts their runners on Ray, and always knows how they are."""
