"""What `plan` shows of a job before it runs: cost, memory and idle time of stages and workers, and the bottleneck."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from coordinator.plan.blueprint import Blueprint
from coordinator.plan.link_room import Link, link_room
from coordinator.plan.memory import StageMemory, inference_bytes, parameter_count, predict_stage
from coordinator.plan.partition import layer_flops, stage_costs
from coordinator.plan.predicted_step import counted_times, predicted_step
from coordinator.program.replay import Replay, replay
from coordinator.texts import size
from coordinator.timing.prediction import as_performed, durations, products
from stages.actions import Kind
from stages.chunks import CHUNKS_AHEAD
from stages.network import Network, Op
from stages.trained import STEPS_RUN_AHEAD, performed_lane, stage_of


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """One stage: its layers, parameters (numbers), floating-point operations of a batch, and bytes."""

    stage: int
    worker: int
    layers: range
    parameters: int
    flops: float
    memory: StageMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """One worker: bytes of its stages, of arrays on their way with the memory of its links, of its data rows, and of
    the copy of its state from which checkpoints are written; busy share of a step."""

    worker: int
    stages_bytes: int
    message_bytes: int
    data_bytes: int
    busy: float
    limit: int | None
    checkpoint_bytes: int = 0

    @property
    def total(self) -> int:
        """Bytes that the worker needs in addition to its runtime."""
        return self.stages_bytes + self.message_bytes + self.data_bytes + self.checkpoint_bytes

    @property
    def fits(self) -> bool:
        """Whether that fits into `resources.memory_per_worker`."""
        return self.limit is None or self.total <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The whole plan. `bubble` is predicted from the stages' costs in F, I and W, in the same way as a run
    predicts it from measured times."""

    stages: tuple[StagePlan, ...]
    workers: tuple[WorkerPlan, ...]
    bubble: float
    bottleneck: int

    def as_dict(self) -> dict[str, object]:
        """Return the plan as plain values."""
        return {
            "stages": [{**asdict(s), "layers": list(s.layers)} for s in self.stages],
            "workers": [{**asdict(w), "total": w.total, "fits": w.fits} for w in self.workers],
            "bubble": self.bubble,
            "bottleneck": self.bottleneck,
            "refusals": list(self.refusals),
        }

    @property
    def refusals(self) -> tuple[str, ...]:
        """A line for each worker whose stages do not fit into its memory, with what would help."""
        return tuple(_refusal(self, worker) for worker in self.workers if not worker.fits)


def estimate(blueprint: Blueprint, *, data_bytes: int, validation_rows: int) -> Estimate:
    """Return the plan of a job whose rows take `data_bytes` in each worker that holds the first or last stage.

    The bytes of buffers are those of the step or evaluation that needs most: steps of another size free the buffers of
    the step before.
    """
    spec, program, rows = blueprint.spec, blueprint.program, blueprint.micro_batch_rows
    model, bounds, placement = spec.model_spec(), blueprint.bounds, program.placement
    flops = layer_flops(model)
    chunk = min(spec.training.evaluate_batch_size, validation_rows)
    stages = tuple(
        StagePlan(
            stage=s,
            worker=placement[s],
            layers=range(bounds[s], bounds[s + 1]),
            parameters=parameter_count(model, bounds[s], bounds[s + 1]),
            flops=sum(rows) * sum(flops[bounds[s] : bounds[s + 1]]),
            memory=_stage_memory(blueprint, s, chunk),
        )
        for s in range(program.n_stages)
    )

    dry, step = dry_run(blueprint), predicted_step(blueprint, counted_times(spec))
    busy = [
        1 - sum(step.bubble.stages[s] for s in range(program.n_stages) if placement[s] == w)
        for w in range(program.n_workers)
    ]
    item, room = model.itemsize, link_room(blueprint)
    ends = (0, program.n_stages - 1)
    workers = tuple(
        WorkerPlan(
            worker=w,
            stages_bytes=sum(plan.memory.total for plan in stages if plan.worker == w),
            message_bytes=sum(n for link, n in room.items() if w in link)
            + max(
                _message_bytes(dry, w, model.network, bounds, rows, item, blueprint.first_trained, room),
                _chunk_bytes(blueprint, w, chunk * item),
                _tied_bytes(blueprint, w),
            ),
            data_bytes=data_bytes if any(placement[s] == w for s in ends) else 0,
            busy=busy[w],
            limit=spec.resources.memory_per_worker,
            checkpoint_bytes=0 if spec.checkpoint is None else _state_bytes(stages, w),
        )
        for w in range(program.n_workers)
    )
    bottleneck = max(range(program.n_workers), key=busy.__getitem__)
    return Estimate(stages=stages, workers=workers, bubble=step.bubble.total, bottleneck=bottleneck)


def _state_bytes(stages: Sequence[StagePlan], worker: int) -> int:
    return sum(plan.memory.weights + plan.memory.optimizer for plan in stages if plan.worker == worker)


def dry_run(blueprint: Blueprint) -> Replay:
    """Return the dry run of a full batch, as it is performed (see coordinator.timing.prediction, [Note: as
    performed])."""
    costs, rows = (
        stage_costs(blueprint.spec.model_spec(), blueprint.bounds, blueprint.recompute),
        blueprint.micro_batch_rows,
    )
    program = as_performed(blueprint.program)
    made = products(program, blueprint.spec.pipeline.weight_grad_group)
    duration = durations(made, lambda stage, kind, j: costs[stage].of(kind) * rows[j])
    return replay(program, duration, first_trained=blueprint.first_trained)


def _stage_memory(blueprint: Blueprint, stage: int, chunk: int) -> StageMemory:
    """Return the bytes of a stage in a full batch; its buffers as in the step, or evaluation of `chunk` rows, that
    needs most."""
    spec, placement = blueprint.spec, blueprint.program.placement
    model, bounds = spec.model_spec(), blueprint.bounds
    by_count = {
        m: predict_stage(
            model,
            bounds,
            stage,
            spec.optimizer(),
            performed_lane(program.lanes[placement[stage]], blueprint.first_trained),
            blueprint.rows_by_count[m],
            spec.pipeline.weight_grad_group,
            recompute=stage in blueprint.recompute,
        )
        for m, program in blueprint.programs.items()
    }
    evaluation = inference_bytes(model, bounds[stage], bounds[stage + 1], chunk)
    return replace(by_count[max(by_count)], pool=max(evaluation, *(memory.pool for memory in by_count.values())))


def _chunk_bytes(blueprint: Blueprint, worker: int, row_bytes: int) -> int:
    """Return the bytes of evaluation chunks that wait for `worker`: the worker before it may be CHUNKS_AHEAD chunks
    ahead."""
    network, placement = blueprint.spec.model_spec().network, blueprint.program.placement
    return sum(
        CHUNKS_AHEAD * network.crossing_numbers(blueprint.bounds[s]) * row_bytes
        for s in range(1, len(placement))
        if placement[s] == worker != placement[s - 1]
    )


def _tied_bytes(blueprint: Blueprint, worker: int) -> int:
    """Return the bytes of tied weights that wait for the worker or are sent by it at an update: first gradients, at the
    end of a step, then new values. A sent array counts because a channel between hosts holds a copy."""
    model, bounds, placement = blueprint.spec.model_spec(), blueprint.bounds, blueprint.program.placement

    def worker_of(op: Op) -> int:
        return placement[stage_of(op.index, bounds)]

    at = [(worker_of(tie.user), worker_of(tie.owner), tie) for tie in model.network.trained_ties]
    return sum(model.itemsize * math.prod(t.shape) for user, owner, t in at if (user == worker) != (owner == worker))


def _message_bytes(
    dry: Replay,
    worker: int,
    network: Network,
    bounds: Sequence[int],
    rows: Sequence[int],
    item: int,
    first_trained: int,
    room: Mapping[Link, int],
) -> int:
    """Return the most bytes of arrays outside of links that wait for `worker` at once in the dry run: arrays of its own
    stages, ∂ℓ/∂f of its loss, and the copy of the array that it received last; from others, what their links have no
    room for.

    An array waits from the end of the action that makes it to the end of the action that uses it. Untrained stages of
    other workers run ahead, so the arrays of STEPS_RUN_AHEAD whole steps from them may wait.
    """
    program, last = dry.program, dry.program.n_stages - 1
    ended = {
        (a.stage, a.kind is Kind.FORWARD, a.micro_batch): end
        for lane in dry.spans
        for a, _, end in lane
        if a.kind is not Kind.BACKWARD_WEIGHT
    }
    changes: dict[int, list[tuple[float, int]]] = {worker: []}
    """By the worker that sends."""
    largest_received = run_ahead = 0
    for action, _, end in dry.spans[worker]:
        s, forward = action.stage, action.kind is Kind.FORWARD
        if action.kind is Kind.BACKWARD_WEIGHT:
            continue
        source = (s - 1 if forward else s + 1, forward, action.micro_batch)
        if not forward and s == last:
            source = (s, True, action.micro_batch)
        if source not in ended:
            continue
        numbers = network.crossing_numbers(bounds[s]) if forward else network.gradient_numbers(bounds[s + 1])
        nbytes, sender = numbers * rows[action.micro_batch] * item, program.placement[source[0]]
        if sender != worker:
            largest_received = max(largest_received, nbytes)
            if forward and s <= first_trained:
                run_ahead += STEPS_RUN_AHEAD * nbytes
                continue
        arrives = ended[source]
        used = max(end, math.nextafter(arrives, math.inf))  # even an I that costs nothing receives its array
        changes.setdefault(sender, []).extend([(arrives, nbytes), (used, -nbytes)])
    waiting = {sender: _most(of_sender) for sender, of_sender in changes.items()}
    return (
        waiting.pop(worker)
        + sum(max(0, most - room[sender, worker]) for sender, most in waiting.items())
        + run_ahead
        + largest_received
    )


def _most(changes: Iterable[tuple[float, int]]) -> int:
    """Return the largest sum of changes up to a moment."""
    now = most = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def _refusal(plan: Estimate, worker: WorkerPlan) -> str:
    own = [stage for stage in plan.stages if stage.worker == worker.worker]
    names = ", ".join(str(stage.stage) for stage in own)
    parameters = sum(s.memory.weights + s.memory.gradients + s.memory.optimizer for s in own)
    assert worker.limit is not None, "what has no limit fits"
    return (
        f"worker {worker.worker} (stage {names}) needs {size(worker.total, 'up')}, resources.memory_per_worker is "
        f"{size(worker.limit, 'down')}: {size(parameters)} for weights, gradients and optimizer, "
        f"{size(sum(s.memory.pool for s in own))} for activations; "
        "more stages, more micro-batches or more memory help"
    )
