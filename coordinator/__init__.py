"""The part that decides: job files, partitions, schedules and the training loop. It reads job and schedule files;
callers do all other I/O."""
