"""CRC-32 as zlib computes it, but several times faster, so that a checkpoint is checked as fast as it is read."""

try:
    from isal.isal_zlib import crc32
except ImportError:  # a processor for which isal has no wheel
    from zlib import crc32

__all__ = ["crc32"]
