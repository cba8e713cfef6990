"""The service's queue and the life of its jobs, decided without I/O."""
