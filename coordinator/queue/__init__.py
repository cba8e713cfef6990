"""The decisions of the service's queue and of its jobs' states, without I/O."""
