"""The service's interface: `pipetrain.proto`, the code generated from it, and conversions to pipetrain's own types."""
