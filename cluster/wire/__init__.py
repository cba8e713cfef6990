"""The service's interface: `pipetrain.proto`, what is generated from it, and the way between it and our own types."""
