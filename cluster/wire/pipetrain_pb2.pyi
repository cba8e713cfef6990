from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    QUEUED: _ClassVar[State]
    STARTING: _ClassVar[State]
    RUNNING: _ClassVar[State]
    RECOVERING: _ClassVar[State]
    SUCCEEDED: _ClassVar[State]
    FAILED: _ClassVar[State]
    STOPPED: _ClassVar[State]
STATE_UNSPECIFIED: State
QUEUED: State
STARTING: State
RUNNING: State
RECOVERING: State
SUCCEEDED: State
FAILED: State
STOPPED: State

class Job(_message.Message):
    __slots__ = ("id", "name", "state", "reason", "attempt", "step", "steps_total", "loss", "validation_loss", "validation_accuracy", "submitted_at", "started_at", "ended_at", "priority", "queue_position", "submission_id", "workers", "cpus", "memory", "exit_code", "document", "traceback", "files", "queue_length", "model_saved", "validation_perplexity", "validation_bits_per_byte")
    class FilesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    SUBMISSION_ID_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MODEL_SAVED_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_PERPLEXITY_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_BITS_PER_BYTE_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    state: State
    reason: str
    attempt: int
    step: int
    steps_total: int
    loss: float
    validation_loss: float
    validation_accuracy: float
    submitted_at: float
    started_at: float
    ended_at: float
    priority: int
    queue_position: int
    submission_id: str
    workers: int
    cpus: int
    memory: int
    exit_code: int
    document: str
    traceback: str
    files: _containers.ScalarMap[str, str]
    queue_length: int
    model_saved: bool
    validation_perplexity: float
    validation_bits_per_byte: float
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[_Union[State, str]] = ..., reason: _Optional[str] = ..., attempt: _Optional[int] = ..., step: _Optional[int] = ..., steps_total: _Optional[int] = ..., loss: _Optional[float] = ..., validation_loss: _Optional[float] = ..., validation_accuracy: _Optional[float] = ..., submitted_at: _Optional[float] = ..., started_at: _Optional[float] = ..., ended_at: _Optional[float] = ..., priority: _Optional[int] = ..., queue_position: _Optional[int] = ..., submission_id: _Optional[str] = ..., workers: _Optional[int] = ..., cpus: _Optional[int] = ..., memory: _Optional[int] = ..., exit_code: _Optional[int] = ..., document: _Optional[str] = ..., traceback: _Optional[str] = ..., files: _Optional[_Mapping[str, str]] = ..., queue_length: _Optional[int] = ..., model_saved: _Optional[bool] = ..., validation_perplexity: _Optional[float] = ..., validation_bits_per_byte: _Optional[float] = ...) -> None: ...

class SubmitRequest(_message.Message):
    __slots__ = ("document", "files", "name", "priority", "submission_id", "force", "resume", "preempt")
    class FilesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    SUBMISSION_ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    PREEMPT_FIELD_NUMBER: _ClassVar[int]
    document: str
    files: _containers.ScalarMap[str, str]
    name: str
    priority: int
    submission_id: str
    force: bool
    resume: str
    preempt: bool
    def __init__(self, document: _Optional[str] = ..., files: _Optional[_Mapping[str, str]] = ..., name: _Optional[str] = ..., priority: _Optional[int] = ..., submission_id: _Optional[str] = ..., force: _Optional[bool] = ..., resume: _Optional[str] = ..., preempt: _Optional[bool] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("states", "name", "limit")
    STATES_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedScalarFieldContainer[State]
    name: str
    limit: int
    def __init__(self, states: _Optional[_Iterable[_Union[State, str]]] = ..., name: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("id", "cursor", "without_rows", "from_now", "until_now")
    ID_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_ROWS_FIELD_NUMBER: _ClassVar[int]
    FROM_NOW_FIELD_NUMBER: _ClassVar[int]
    UNTIL_NOW_FIELD_NUMBER: _ClassVar[int]
    id: str
    cursor: str
    without_rows: bool
    from_now: bool
    until_now: bool
    def __init__(self, id: _Optional[str] = ..., cursor: _Optional[str] = ..., without_rows: _Optional[bool] = ..., from_now: _Optional[bool] = ..., until_now: _Optional[bool] = ...) -> None: ...

class WatchUpdate(_message.Message):
    __slots__ = ("cursor", "job", "events", "rows")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    job: Job
    events: _containers.RepeatedCompositeFieldContainer[Event]
    rows: _containers.RepeatedCompositeFieldContainer[MetricRow]
    def __init__(self, cursor: _Optional[str] = ..., job: _Optional[_Union[Job, _Mapping]] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., rows: _Optional[_Iterable[_Union[MetricRow, _Mapping]]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("seq", "time", "kind", "attempt", "text", "details")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    seq: int
    time: float
    kind: str
    attempt: int
    text: str
    details: str
    def __init__(self, seq: _Optional[int] = ..., time: _Optional[float] = ..., kind: _Optional[str] = ..., attempt: _Optional[int] = ..., text: _Optional[str] = ..., details: _Optional[str] = ...) -> None: ...

class MetricRow(_message.Message):
    __slots__ = ("attempt", "step", "eval")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    EVAL_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    step: StepRow
    eval: EvalRow
    def __init__(self, attempt: _Optional[int] = ..., step: _Optional[_Union[StepRow, _Mapping]] = ..., eval: _Optional[_Union[EvalRow, _Mapping]] = ...) -> None: ...

class StepRow(_message.Message):
    __slots__ = ("step", "epoch", "samples", "loss", "seconds", "grad_norm", "learning_rate", "bubble", "accuracy", "bubble_predicted", "figures", "summed", "counted", "steps")
    class FiguresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    GRAD_NORM_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    BUBBLE_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    BUBBLE_PREDICTED_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    SUMMED_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    step: int
    epoch: int
    samples: int
    loss: float
    seconds: float
    grad_norm: float
    learning_rate: float
    bubble: float
    accuracy: float
    bubble_predicted: float
    figures: _containers.ScalarMap[str, float]
    summed: bool
    counted: int
    steps: int
    def __init__(self, step: _Optional[int] = ..., epoch: _Optional[int] = ..., samples: _Optional[int] = ..., loss: _Optional[float] = ..., seconds: _Optional[float] = ..., grad_norm: _Optional[float] = ..., learning_rate: _Optional[float] = ..., bubble: _Optional[float] = ..., accuracy: _Optional[float] = ..., bubble_predicted: _Optional[float] = ..., figures: _Optional[_Mapping[str, float]] = ..., summed: _Optional[bool] = ..., counted: _Optional[int] = ..., steps: _Optional[int] = ...) -> None: ...

class EvalRow(_message.Message):
    __slots__ = ("step", "epoch", "loss", "accuracy", "samples", "figures", "summed", "counted")
    class FiguresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    SUMMED_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    step: int
    epoch: int
    loss: float
    accuracy: float
    samples: int
    figures: _containers.ScalarMap[str, float]
    summed: bool
    counted: int
    def __init__(self, step: _Optional[int] = ..., epoch: _Optional[int] = ..., loss: _Optional[float] = ..., accuracy: _Optional[float] = ..., samples: _Optional[int] = ..., figures: _Optional[_Mapping[str, float]] = ..., summed: _Optional[bool] = ..., counted: _Optional[int] = ...) -> None: ...

class LogsRequest(_message.Message):
    __slots__ = ("id", "worker", "follow", "tail")
    ID_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    id: str
    worker: int
    follow: bool
    tail: int
    def __init__(self, id: _Optional[str] = ..., worker: _Optional[int] = ..., follow: _Optional[bool] = ..., tail: _Optional[int] = ...) -> None: ...

class LogChunk(_message.Message):
    __slots__ = ("worker", "text")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    worker: int
    text: bytes
    def __init__(self, worker: _Optional[int] = ..., text: _Optional[bytes] = ...) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ("id", "now", "grace")
    ID_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    id: str
    now: bool
    grace: float
    def __init__(self, id: _Optional[str] = ..., now: _Optional[bool] = ..., grace: _Optional[float] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("id", "what")
    class What(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MODEL: _ClassVar[FetchRequest.What]
        RUN_DIRECTORY: _ClassVar[FetchRequest.What]
    MODEL: FetchRequest.What
    RUN_DIRECTORY: FetchRequest.What
    ID_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    id: str
    what: FetchRequest.What
    def __init__(self, id: _Optional[str] = ..., what: _Optional[_Union[FetchRequest.What, str]] = ...) -> None: ...

class FetchChunk(_message.Message):
    __slots__ = ("path", "size", "data", "sha256")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    path: str
    size: int
    data: bytes
    sha256: str
    def __init__(self, path: _Optional[str] = ..., size: _Optional[int] = ..., data: _Optional[bytes] = ..., sha256: _Optional[str] = ...) -> None: ...

class TraceRequest(_message.Message):
    __slots__ = ("id", "steps", "only_ask")
    ID_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    ONLY_ASK_FIELD_NUMBER: _ClassVar[int]
    id: str
    steps: int
    only_ask: bool
    def __init__(self, id: _Optional[str] = ..., steps: _Optional[int] = ..., only_ask: _Optional[bool] = ...) -> None: ...

class FaultRequest(_message.Message):
    __slots__ = ("id", "kind", "worker", "at", "step", "seconds", "steps")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    worker: int
    at: str
    step: int
    seconds: float
    steps: int
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., worker: _Optional[int] = ..., at: _Optional[str] = ..., step: _Optional[int] = ..., seconds: _Optional[float] = ..., steps: _Optional[int] = ...) -> None: ...

class FaultResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class UploadRequest(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: UploadHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[UploadHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class UploadHeader(_message.Message):
    __slots__ = ("sha256", "size", "extension", "offset")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    EXTENSION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    size: int
    extension: str
    offset: int
    def __init__(self, sha256: _Optional[str] = ..., size: _Optional[int] = ..., extension: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class UploadResponse(_message.Message):
    __slots__ = ("received", "complete")
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    received: int
    complete: bool
    def __init__(self, received: _Optional[int] = ..., complete: _Optional[bool] = ...) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ("document", "files")
    class FilesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    document: str
    files: _containers.ScalarMap[str, str]
    def __init__(self, document: _Optional[str] = ..., files: _Optional[_Mapping[str, str]] = ...) -> None: ...

class PlanResponse(_message.Message):
    __slots__ = ("plan", "refusals")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    plan: str
    refusals: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, plan: _Optional[str] = ..., refusals: _Optional[_Iterable[str]] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ids: _Optional[_Iterable[str]] = ...) -> None: ...

class StatsResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[JobStats]
    def __init__(self, jobs: _Optional[_Iterable[_Union[JobStats, _Mapping]]] = ...) -> None: ...

class JobStats(_message.Message):
    __slots__ = ("id", "attempt", "step", "loss", "accuracy", "validation_loss", "validation_accuracy", "samples_per_second", "bubble", "bubble_predicted", "losses", "workers", "figures")
    class FiguresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    BUBBLE_FIELD_NUMBER: _ClassVar[int]
    BUBBLE_PREDICTED_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    id: str
    attempt: int
    step: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    samples_per_second: float
    bubble: float
    bubble_predicted: float
    losses: _containers.RepeatedScalarFieldContainer[float]
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStats]
    figures: _containers.ScalarMap[str, float]
    def __init__(self, id: _Optional[str] = ..., attempt: _Optional[int] = ..., step: _Optional[int] = ..., loss: _Optional[float] = ..., accuracy: _Optional[float] = ..., validation_loss: _Optional[float] = ..., validation_accuracy: _Optional[float] = ..., samples_per_second: _Optional[float] = ..., bubble: _Optional[float] = ..., bubble_predicted: _Optional[float] = ..., losses: _Optional[_Iterable[float]] = ..., workers: _Optional[_Iterable[_Union[WorkerStats, _Mapping]]] = ..., figures: _Optional[_Mapping[str, float]] = ...) -> None: ...

class WorkerStats(_message.Message):
    __slots__ = ("worker", "host", "pid", "stages", "microseconds", "bubble_predicted", "peak_rss_bytes", "limit_bytes", "peak_job_bytes")
    class MicrosecondsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    WORKER_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    BUBBLE_PREDICTED_FIELD_NUMBER: _ClassVar[int]
    PEAK_RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_JOB_BYTES_FIELD_NUMBER: _ClassVar[int]
    worker: int
    host: str
    pid: int
    stages: _containers.RepeatedScalarFieldContainer[int]
    microseconds: _containers.ScalarMap[str, int]
    bubble_predicted: float
    peak_rss_bytes: int
    limit_bytes: int
    peak_job_bytes: int
    def __init__(self, worker: _Optional[int] = ..., host: _Optional[str] = ..., pid: _Optional[int] = ..., stages: _Optional[_Iterable[int]] = ..., microseconds: _Optional[_Mapping[str, int]] = ..., bubble_predicted: _Optional[float] = ..., peak_rss_bytes: _Optional[int] = ..., limit_bytes: _Optional[int] = ..., peak_job_bytes: _Optional[int] = ...) -> None: ...

class ClusterRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Node(_message.Message):
    __slots__ = ("id", "host", "address", "alive", "cpus", "cpus_used", "memory", "memory_used")
    ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    CPUS_USED_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_FIELD_NUMBER: _ClassVar[int]
    id: str
    host: str
    address: str
    alive: bool
    cpus: float
    cpus_used: float
    memory: int
    memory_used: int
    def __init__(self, id: _Optional[str] = ..., host: _Optional[str] = ..., address: _Optional[str] = ..., alive: _Optional[bool] = ..., cpus: _Optional[float] = ..., cpus_used: _Optional[float] = ..., memory: _Optional[int] = ..., memory_used: _Optional[int] = ...) -> None: ...

class ClusterState(_message.Message):
    __slots__ = ("version", "started_at", "ray", "ray_address", "nodes", "jobs", "active", "waiting", "max_queued", "home", "problems")
    class JobsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    RAY_FIELD_NUMBER: _ClassVar[int]
    RAY_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_FIELD_NUMBER: _ClassVar[int]
    HOME_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    version: str
    started_at: float
    ray: str
    ray_address: str
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    jobs: _containers.ScalarMap[str, int]
    active: _containers.RepeatedCompositeFieldContainer[Job]
    waiting: _containers.RepeatedCompositeFieldContainer[Job]
    max_queued: int
    home: str
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[str] = ..., started_at: _Optional[float] = ..., ray: _Optional[str] = ..., ray_address: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., jobs: _Optional[_Mapping[str, int]] = ..., active: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., waiting: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., max_queued: _Optional[int] = ..., home: _Optional[str] = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...
