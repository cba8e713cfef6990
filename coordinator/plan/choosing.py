"""`pipeline: auto`: chooses a job's settings by their predicted steps, once, before the job is planned. No I/O.

[Note: chosen once] The choice stands in the run's job file like settings that a user gives. So a run that goes on, an
attempt of the service, `evaluate` and pages need to know nothing of it, and no later choice can change a bit.
"""

from __future__ import annotations

from functools import partial

from coordinator.job.sections import PipelineSection
from coordinator.job.spec import JobSpec
from coordinator.plan.candidate_memory import MemoryOf, those_that_fit
from coordinator.plan.candidates import Candidates, Scope
from coordinator.plan.predicted_step import estimated_times, predicted_step
from coordinator.plan.settings import PipelineSettings, with_settings
from coordinator.texts import counted
from coordinator.timing.machine_times import MachineTimes


def chosen(
    spec: JobSpec,
    n_train: int,
    room: int,
    *,
    data_bytes: int = 0,
    validation_rows: int = 0,
    times: MachineTimes | None = None,
) -> tuple[JobSpec, tuple[str, ...]]:
    """Return the job with settings instead of `pipeline: auto`, and a line that says which; any other job as it is.

    There is room for `room` workers, each with CPUs of its own. `times` are measured ones; None: the times of counted
    operations. `training.micro_batches` stays if the job gives it. Raises InvalidJob, and NotEnoughResources if no
    settings fit into `resources.memory_per_worker`.
    """
    if not spec.pipeline.is_auto:
        return spec, ()
    given = "micro_batches" in spec.training.model_fields_set
    own = PipelineSettings(stages=1, workers=1, schedule="1f1b", micro_batches=spec.training.micro_batches)
    scope = Scope(most_workers=max(1, room), own=own, kept=frozenset({"micro_batches"} if given else ()))
    known = times or estimated_times(spec, cores=max(1, room) * spec.resources.cpus_per_worker)
    open_job = spec.model_copy(update={"pipeline": PipelineSection()})
    found = Candidates(open_job, n_train, scope, partial(predicted_step, times=known))
    memory_of = MemoryOf(data_bytes=data_bytes, validation_rows=validation_rows)
    (best, *_), _ = those_that_fit(found, 1, memory_of, compares=False)
    basis = "measured" if known.source == "measured" else "counted"
    line = (
        f"pipeline auto: {best.settings}: the shortest predicted step of {counted(found.n_predicted, 'choice')}, from "
        f"{basis} times"
    )
    return with_settings(spec, best.settings), (line,)
