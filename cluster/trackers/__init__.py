"""Experiment trackers that record a run: TensorBoard event files, MLflow. Off unless the job's `tracking` names one.

    require_trackers(spec)                    # raises UserMistake if a package is missing
    with Trackers(spec, run_dir.path, warn=print) as trackers:
        for row in rows:
            trackers.row(row)
        trackers.close("finished")            # or "stopped"; an error in the `with` makes it "failed"

A tracker's library is loaded only when a job that uses it begins.
"""

from cluster.trackers.options import require_trackers, tracking_of
from cluster.trackers.rules import require_tracking
from cluster.trackers.tracker import Point, TrackedRun, Tracker
from cluster.trackers.trackers import Trackers

__all__ = ["Point", "TrackedRun", "Tracker", "Trackers", "require_trackers", "require_tracking", "tracking_of"]
