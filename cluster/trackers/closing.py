"""`python -m cluster.trackers.closing RUN_DIRECTORY OUTCOME`: end a run that is still open at a tracker.

The service starts this for a run whose process was killed. It is a process of its own because a tracker's server may
hang, and its library takes long to load.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

from cluster.trackers.tracker import Outcome


def main() -> int:
    """End the run and return 0. If that fails, print the reason to standard error and return 1."""
    folder, outcome = Path(sys.argv[1]), sys.argv[2]
    (known,) = (one for one in get_args(Outcome) if one == outcome)
    try:
        from cluster.trackers.mlflow import end_open_run

        end_open_run(folder, known, in_its_folder=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
