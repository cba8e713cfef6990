"""Experiment trackers that are told of a run: TensorBoard event files, MLflow. Off unless the job's `tracking` asks.

    require_trackers(spec)                    # raises UserMistake where a package is missing
    with Trackers(spec, run_dir.path, warn=print) as trackers:
        for row in rows:
            trackers.row(row)
        trackers.close("finished")            # or "stopped"; an error that leaves the `with` makes it "failed"

Nothing here loads a tracker's library before a job that wants it has begun.
"""

from cluster.trackers.options import require_trackers, tracking_of
from cluster.trackers.rules import require_tracking
from cluster.trackers.tracker import Point, TrackedRun, Tracker
from cluster.trackers.trackers import Trackers

__all__ = ["Point", "TrackedRun", "Tracker", "Trackers", "require_trackers", "require_tracking", "tracking_of"]
