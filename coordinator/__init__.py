"""The part that decides: job files, partitions, schedules and the training loop. It does no I/O of its own."""
