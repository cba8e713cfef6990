"""The labels and the parts of queries that several dashboards use."""

from __future__ import annotations

OF_JOB = 'job="$job"'
OF_STAGES = f'{OF_JOB}, stage=~"$stage"'


def rate(metric: str, labels: str = OF_JOB) -> str:
    """Return the increase of a counter in a second."""
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def seconds(kinds: str = ".+", stages: str = OF_STAGES) -> str:
    """Return the share of their time that the stages spend on these kinds of work, a regular expression."""
    return rate("pipetrain_stage_seconds_total", f'{stages}, kind=~"{kinds}"')
