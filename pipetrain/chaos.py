"""Faults on request, from Python: `inject_fault` for a run of `train`, `soak` for a random campaign.

A job of the service has `Job.inject_fault`.
"""

from cluster.chaos.asking import inject_fault
from cluster.chaos.soak import SoakReport, soak

__all__ = ["SoakReport", "inject_fault", "soak"]
