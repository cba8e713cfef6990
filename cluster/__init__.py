"""The outside world: Ray, ZeroMQ, files and the command line."""
