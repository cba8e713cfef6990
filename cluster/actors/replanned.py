"""Workers that perform one plan of a job after another, in the same processes."""

from __future__ import annotations

from cluster.actors.ray_workers import RayWorkers
from cluster.checkpoints.folder import NO_STATE
from coordinator.plan.blueprint import Blueprint
from coordinator.train.pace import ActionPace


class ReplannedWorkers(RayWorkers):
    """See RayWorkers. `perform` takes a tenth of the time of new processes, and data is read only once."""

    @property
    def blueprint(self) -> Blueprint:
        """The plan that they perform."""
        return self._blueprint

    def perform(self, blueprint: Blueprint) -> None:
        """Connect anew, and begin with another plan of the same job for as many workers. Raises JobFailed."""
        assert blueprint.n_workers == self._blueprint.n_workers, "each process is one worker"
        _, fingerprint, weights = self._begins_with
        self._blueprint, self._program = blueprint, blueprint.program
        self._begins_with = blueprint.spec.document(), fingerprint, weights
        self._connection, self.pace = self._connection + 1, ActionPace()
        self._bind()
        self._connect()
        self._prepare_all(NO_STATE)
