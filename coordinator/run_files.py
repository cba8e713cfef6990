"""The files of a run directory: their names, and what each is for. All code takes the names from here.

`RUN_FILES` is the table of `docs/run-directory.md`. Files whose names begin with a dot are never fetched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatch

JOB = "job.yaml"
METRICS = "metrics.jsonl"
ACCOUNTS = "accounts.jsonl"
EVENTS = "events.jsonl"
TIMELINE = "timeline.json"
PLAN = "plan.json"
EVALUATION = "evaluation.json"
TRACE = "trace.json"
TRACE_REQUEST = "trace.request"
FAULT_REQUEST = "fault.request"
FAULTS = "faults"
MODEL = "model.safetensors"
MODEL_LAYERS = "model.json"
TOKENIZER = "tokenizer.json"
PREPROCESSING = "preprocessing.json"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
LOGS = "logs"
RESERVE = ".reserve"
TENSORBOARD_CLAIM = ".tensorboard"
MLFLOW_OPEN = ".mlflow-run"
MLFLOW_RUN = ".mlflow"
"""Names the open run at MLflow and its server. If it exists although the run has ended, the service closes that run."""

MODEL_FILES = (JOB, MODEL_LAYERS, MODEL)
"""The files of a trained model: `evaluate` and `predict` read only these, and of TOKENIZER and PREPROCESSING what
exists."""
MADE_BEFORE_STEPS = (JOB, METRICS, ACCOUNTS, EVENTS, TIMELINE, PLAN, PREPROCESSING, CHECKPOINTS, TENSORBOARD)
"""The files that a run makes before its first step."""
MADE = (*MADE_BEFORE_STEPS, EVALUATION, TRACE, TRACE_REQUEST, FAULT_REQUEST, FAULTS, TOKENIZER, MODEL_LAYERS, MODEL)
"""The files that a run of `pipetrain train` makes and `--overwrite` removes."""
MARKS = (JOB, EVENTS)
"""A folder that has both is a run directory; a job file alone may be the user's own."""

_WORKER_LOG = re.compile(r"worker-(\d+)\.log")


@dataclass(frozen=True, slots=True)
class RunFile:
    """A row of the table. `name` is one of the names above, or a pattern as in a shell."""

    name: str
    content: str
    written_by: str
    read_by: str


RUN_FILES = (
    RunFile(JOB, "the job with every default", "the run, at its start", "`predict`, you"),
    RunFile(
        METRICS,
        "a row for each step or, with `training.log_every`, several; and for each evaluation",
        "the run",
        "the service, you",
    ),
    RunFile(ACCOUNTS, "where workers' time went, summed since the start", "the run, after steps", "the service, you"),
    RunFile(EVENTS, "what happened: started, waiting, finished, failed …", "the run", "the service, you"),
    RunFile(TIMELINE, "what every worker did when, in one step of about the last second", "the run", "the service"),
    RunFile(
        PLAN,
        "the schedule: its dry run with counted costs, and what the search for `auto` gained",
        "the run, before its first step and in a new layout",
        "the dashboard, you",
    ),
    RunFile(
        EVALUATION,
        "how good the network is on the validation rows: precision, recall, F1 and confusion of classes, or R² and "
        "errors of numbers",
        "the run, after evaluations",
        "the dashboard, you",
    ),
    RunFile(
        MODEL,
        "the trained weights, named as in `torch.nn.Sequential`",
        "the run, at its end",
        "`predict`, torch",
    ),
    RunFile(MODEL_LAYERS, "the layers that the weights belong to", "the run, at its end", "`predict`, you"),
    RunFile(TOKENIZER, "the tokenizer, if the network's text has one", "the run, at its end", "`generate`, you"),
    RunFile(PREPROCESSING, "how a table's columns became numbers", "the run, at its start", "`predict`, you"),
    RunFile(f"{CHECKPOINTS}/step-*/*", "the state after a step", "the workers; the manifest last: the run", "`resume`"),
    RunFile(f"{CHECKPOINTS}/.step-*/*", "a checkpoint that is not whole", "the workers", "nobody"),
    RunFile(TRACE, "the steps that were traced last", "the run, if a trace was requested", "Perfetto"),
    RunFile(TRACE_REQUEST, "how many steps the run must trace", "the service", "the run, which removes it"),
    RunFile(FAULT_REQUEST, "which fault to inject", "the service, `pipetrain chaos`", "the run, which removes it"),
    RunFile(f"{FAULTS}/*", "a fault that has struck", "the worker, before it strikes", "the run"),
    RunFile(f"{LOGS}/runner.log", "what the job's runner prints", "the runner", "the service, you"),
    RunFile(f"{LOGS}/worker-*.log", "what a worker prints", "the worker", "the service, you"),
    RunFile(f"{TENSORBOARD}/*", "TensorBoard's event files", "the tracker", "TensorBoard"),
    RunFile("metrics.attempt-*.jsonl", "the rows of a lost attempt", "the service", "the service, you"),
    RunFile("accounts.attempt-*.jsonl", "the accounts of that attempt", "the service", "you"),
    RunFile(".attempt-*", "the attempt has begun, so no other process performs it", "the runner", "runners"),
    RunFile(RESERVE, "space for the last event if the disk is full", "the run, which removes it", "nobody"),
    RunFile(
        TENSORBOARD_CLAIM,
        "which folder of a shared directory belongs to this run",
        "the tracker",
        "the tracker",
    ),
    RunFile(MLFLOW_OPEN, "the run of MLflow that is not closed yet", "the tracker", "the service"),
    RunFile(MLFLOW_RUN, "the run of MLflow in which this run goes on", "the tracker", "the tracker"),
    RunFile(".*.part", "a file that is not complete yet", "the writer of the file, until it is renamed", "nobody"),
)
"""Every file of a run directory, those of the service's jobs too."""


def log_file(worker: int | None) -> str:
    """Return the name of a worker's log below LOGS; for None, of the runner's."""
    return "runner.log" if worker is None else f"worker-{worker}.log"


def worker_of_log(name: str) -> int | None:
    """Return the worker whose log has this name; None for any other file."""
    found = _WORKER_LOG.fullmatch(name)
    return int(found[1]) if found else None


def of_attempt(name: str, attempt: int) -> str:
    """Return the file's name after its attempt was lost: `metrics.attempt-1.jsonl`."""
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.attempt-{attempt}.{suffix}"


def attempt_mark(attempt: int) -> str:
    """Return the name of the file that the first process of an attempt creates."""
    return f".attempt-{attempt}"


def unfinished(name: str) -> str:
    """Return the file's name until it is complete."""
    return f".{name}.part"


def run_file(path: str) -> RunFile | None:
    """Return the row of a path below a run directory; None for a file that no run makes."""
    return next((row for row in RUN_FILES if fnmatch(path, row.name)), None)
