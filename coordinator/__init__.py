"""What decides: job files, partitions, schedules and the training loop. No I/O but the run's own."""
