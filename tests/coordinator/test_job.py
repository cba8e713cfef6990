from __future__ import annotations

import pickle

import pytest

from coordinator.job.layer_entries import LAYER_KINDS
from coordinator.job.source_names import WHAT_A_SOURCE_IS
from coordinator.job.spec import parse_job
from stages.errors import InvalidJob
from stages.layers import entry
from stages.losses import loss_entry
from stages.spec import ModelSpec, SgdSpec
from tests.coordinator.job_documents import LARGEST, SMALLEST, changed


def problems(document: object) -> tuple[str, ...]:
    with pytest.raises(InvalidJob) as caught:
        parse_job(document)
    return caught.value.problems


def test_every_default_is_filled_in() -> None:
    assert parse_job(SMALLEST).document() == {
        "name": "job",
        "seed": 0,
        "precision": "float32",
        "model": {"input": [64], "layers": [{"linear": {"units": 10, "bias": True}}], "loss": "cross_entropy"},
        "data": {"source": "digits", "target": None, "validation": 0.2},
        "training": {
            "epochs": 3,
            "batch_size": 32,
            "micro_batches": 1,
            "evaluate_batch_size": 32,
            "optimizer": {"sgd": {"learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0, "nesterov": False}},
            "schedule": {"constant": {"warmup": 0, "by": "steps"}},
            "clip_norm": None,
        },
        "pipeline": {
            "stages": 1, "workers": None, "schedule": "1f1b", "partition": "auto", "weight_grad_group": 1,
            "recompute": "none",
        },
        "resources": {"cpus_per_worker": 1, "memory_per_worker": None, "hang_timeout": 60.0},
    }  # fmt: skip


def test_workers_are_told_the_model_and_the_optimizer() -> None:
    spec = parse_job(LARGEST)
    assert spec.model_spec() == ModelSpec(
        input_shape=(8, 8),
        layers=(
            entry("flatten"),
            entry("linear", units=16, bias=False),
            entry("leaky_relu", slope=0.2),
            entry("linear", units=8),
            entry("tanh"),
            entry("sigmoid"),
            entry("gelu", approximate="tanh"),
            entry("linear", units=1),
        ),
        loss=loss_entry("mse"),
        precision="float64",
        seed=7,
    )
    assert spec.optimizer() == SgdSpec(learning_rate=1.0, momentum=0.9, weight_decay=1e-4, nesterov=True)
    assert spec.resources.memory_per_worker == 3 * 2**29


def test_all_problems_are_reported_at_once() -> None:
    document = {
        "nam": "x",
        "precision": "float23",
        "model": {
            "input": [64, 0],
            "layers": [
                {"linear": {"units": 32}},
                {"linear": {"unit": 32}},
                "rellu",
                {"linear": 3},
                {},
                5,
                {"leaky_relu": {"slope": 1}},
                {"linear": {"units": 3}, "relu": {}},
                {"relu": {"slope": 3}},
                {"gelu": {"approximate": "tan"}},
            ],
            "loss": "cross_entropi",
        },
        "data": {"source": "digit", "validation": 1.5},
        "training": {
            "epochs": "two",
            "batch_size": 32,
            "micro_batches": 64,
            "optimizer": {"sgd": {"learning_rate": -1, "nesterov": True}},
        },
        "pipeline": {"stages": 11, "partition": [1, 2], "schedule": "1f1c", "workers": 12},
        "resources": {"memory_per_worker": "1GIB", "cpus_per_worker": True},
    }
    kinds = f"{', '.join(LAYER_KINDS[:-1])} or {LAYER_KINDS[-1]}"
    assert problems(document) == (
        "precision: got 'float23', must be float32 or float64; did you mean float32?",
        "model.input[1]: got 0, must be the shape of one sample, a list of whole numbers such as [64]",
        "model.layers[1].linear.units: missing, must be a whole number of outputs, at least 1",
        "model.layers[1].linear.unit: got 32, unknown key; did you mean units?",
        f"model.layers[2]: got 'rellu', must be one kind of layer: {kinds}; did you mean relu?",
        "model.layers[3].linear: got 3, must be a section with units, bias, tied_to, init",
        f"model.layers[4]: got {{}}, must be one kind of layer: {kinds}",
        f"model.layers[5]: got 5, must be one kind of layer: {kinds}",
        "model.layers[6].leaky_relu.slope: got 1, must be a number from 0 to below 1",
        f"model.layers[7]: got {{'linear': {{'units': 3}}, 'relu': {{}}}}, must be one kind of layer: {kinds}",
        "model.layers[8].relu.slope: got 3, unknown key; there is nothing to set here",
        "model.layers[9].gelu.approximate: got 'tan', must be none or tanh; did you mean tanh?",
        "model.loss: got 'cross_entropi', must be cross_entropy, binary_cross_entropy, mse, sum_of_squares, l1 or "
        "huber; did you mean cross_entropy?",
        f"data.source: got 'digit', must be {WHAT_A_SOURCE_IS}; did you mean digits?",
        "data.validation: got 1.5, must be a share of the rows between 0 and 1, a number of rows, a second source, or "
        "0 for none",
        "training.epochs: got 'two', must be a whole number, at least 1; or give steps",
        "training.optimizer.sgd.learning_rate: got -1, must be a number above 0",
        "pipeline.schedule: got '1f1c', must be gpipe, 1f1b, interleaved-1f1b, looped-bfs, zb-h1, zb-h2, zbv, v-half, "
        "v-min, dualpipev, auto or a .csv file; did you mean 1f1b?",
        "resources.cpus_per_worker: got true, must be a whole number of CPUs and of BLAS threads, at least 1",
        "resources.memory_per_worker: got '1GIB', must be a size such as 1GiB, 512MiB or a number of bytes, "
        "or null for no limit; did you mean 1GiB?",
        "nam: got 'x', unknown key; did you mean name?",
        "training.micro_batches: got 64, must be at most 32, the rows of training.batch_size",
        "training.optimizer.sgd.nesterov: got true, needs momentum above 0; write momentum: 0.9",
        "pipeline.stages: got 11, must be at most 10, the number of model.layers",
        "pipeline.workers: got 12, must be at most 11, the number of pipeline.stages",
        "pipeline.partition: got [1, 2], must have 11 entries, one for each of pipeline.stages",
        "pipeline.partition: got [1, 2], must sum to 10, the number of model.layers",
    )


SECTIONS = "name, seed, precision, model, data, training, pipeline, resources, checkpoint, recovery, tracking"

SHAPE = "the shape of one sample, a list of whole numbers such as [64]"
UNITS = "a whole number of outputs, at least 1"
NOTHING_TO_TRAIN = "model.layers: no linear layer, so there is nothing to train; add linear: {units: 10}"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("model.input", [8, 8], "model.layers[0].linear: its input has the shape [8, 8]; put flatten before it"),
        ("model.input", 64, f"model.input: got 64, must be {SHAPE}"),
        ("model.input", [], f"model.input: got [], must be {SHAPE}"),
        ("model.layers", [], "model.layers: got [], must be a list of layers such as [linear: {units: 10}, relu]"),
        ("model.layers", ["relu"], NOTHING_TO_TRAIN),
        (
            "model.layers.0.linear.units",
            1,
            "model.loss: got 'cross_entropy', needs at least 2 outputs (one a class), but the last layer gives 1",
        ),
        (
            "model.loss",
            {"cross_entropy": {"label_smoothing": 2, "ignore_inde": 3}},
            "model.loss.cross_entropy.label_smoothing: got 2, must be a number from 0 to 1\n"
            "model.loss.cross_entropy.ignore_inde: got 3, unknown key; did you mean ignore_index?",
        ),
        ("model.loss", {"mse": {}, "l1": {}}, "model.loss: got {'l1': {}, 'mse': {}}, must be cross_entropy, "
         "binary_cross_entropy, mse, sum_of_squares, l1 or huber"),
        ("model.loss", {"huber": {"delta": 1e-50}}, "model.loss.huber.delta: got 1e-50, which is 0 in float32, so that "
         "nothing would be learned"),
        ("model.loss", {"huber": {"delta": 0}}, "model.loss.huber.delta: got 0, must be a number above 0"),
        (
            "model.layers.0",
            "batch_norm",
            "model.layers[0]: got 'batch_norm', which does not exist, since its result would depend on how a batch is "
            "cut into micro-batches; use layer_norm or rms_norm, which use only one sample",
        ),
        ("model.layers.0", "linear", f"model.layers[0].linear.units: missing, must be {UNITS}"),
        (
            "data.target",
            "a",
            "data.target: got 'a', but only tables have columns; remove it for 'digits'",
        ),
        (
            "data.source",
            "rows.cvs",
            f"data.source: got 'rows.cvs', must be {WHAT_A_SOURCE_IS}; "
            "did you mean .csv?",
        ),
        ("training", None, "training: got null, must be a section with epochs, steps, batch_size, micro_batches, "
         "evaluate_batch_size, optimizer, schedule, clip_norm, evaluate_every, log_every"),
        ("training.optimizer", {"adom": {}}, None),
        ("training.optimizer.sgd.learning_rate", float("nan"),
         "training.optimizer.sgd.learning_rate: got nan, must be a number above 0"),
        ("training.optimizer.sgd.learning_rate", "0.1",
         "training.optimizer.sgd.learning_rate: got '0.1', must be a number above 0"),
        ("training.optimizer.sgd.momentum", 1,
         "training.optimizer.sgd.momentum: got 1, must be a number from 0 to below 1"),
        ("pipeline.weight_grad_group", 0,
         "pipeline.weight_grad_group: got 0, must be a whole number of micro-batches, at least 1"),
        ("pipeline.partition", [1, 0],
         "pipeline.partition: got [1, 0], must be auto, measured or a list with the layers of each stage, "
         "at least 1 each, such as [2, 3]"),
        ("seed", -1, "seed: got -1, must be a whole number, at least 0"),
        ("name", "a/b",
         "name: got 'a/b', must be a name of at most 100 letters, digits, . _ and -, first a letter or a digit"),
        ("name", "n" * 101,
         f"name: got '{'n' * 37}...{'n' * 38}', must be a name of at most 100 letters, digits, . _ and -, "
         "first a letter or a digit"),
        ("model.layers.0", {"convolution": {}}, "model.layers[0]: got 'convolution', must be one kind of layer: "
         f"{', '.join(LAYER_KINDS[:-1])} or {LAYER_KINDS[-1]}"),
        ("a\nb", 1, f"'a\\nb': got 1, unknown key; known here: {SECTIONS}"),
        ("resources.memory_per_worker", 0,
         "resources.memory_per_worker: got 0, must be a size such as 1GiB, 512MiB or a number of bytes, "
         "or null for no limit"),
    ],
)  # fmt: skip
def test_one_mistake_gives_one_line(path: str, value: object, expected: str | None) -> None:
    if expected is None:
        assert problems(changed(path, value)) == ("training.optimizer.adom: got {}, unknown key; did you mean adam?",)
    else:
        assert problems(changed(path, value)) == tuple(expected.split("\n"))


@pytest.mark.parametrize("document", [None, [], "job", 3, b"x", {1, 2}])
def test_a_document_that_is_not_a_mapping_is_one_problem(document: object) -> None:
    (line,) = problems(document)
    assert line.startswith("the job file: got ")
    assert line.endswith(f", must be a section with {SECTIONS}")


def test_stages_follow_from_a_partition() -> None:
    assert (
        parse_job(changed("pipeline", {"partition": [2, 1, 5]}, changed("pipeline", {}, LARGEST))).pipeline.stages == 3
    )


@pytest.mark.parametrize(
    ("schedule", "workers"),
    [("gpipe", 5), ("1f1b", 5), ("zb-h1", 5), ("interleaved-1f1b", 3), ("zbv", 3), ("auto", 5), ("a.csv", None)],
)
def test_workers_follow_from_the_schedule(schedule: str, workers: int | None) -> None:
    document = changed("pipeline", {"stages": 5, "schedule": schedule}, LARGEST)
    assert parse_job(document).pipeline.n_workers == workers


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("1GiB", 2**30), ("512MiB", 2**29), ("1GB", 10**9), ("0.5 KiB", 512), ("100", 100)]
)
def test_memory_is_read_with_its_unit(text: str, n_bytes: int) -> None:
    spec = parse_job(changed("resources.memory_per_worker", text))
    assert spec.resources.memory_per_worker == n_bytes


def test_replacing_entries_validates_again() -> None:
    spec = parse_job(LARGEST)
    assert spec.replace(stages=None) == spec
    other = spec.replace(stages=2, workers=None, partition="auto", schedule="gpipe", training__epochs=9)
    assert (other.pipeline.stages, other.pipeline.schedule, other.training.epochs) == (2, "gpipe", 9)
    with pytest.raises(InvalidJob) as caught:
        spec.replace(stages=9, partition="auto", training__epoch=1)
    assert caught.value.problems == (
        "training.epoch: got 1, unknown key; did you mean epochs?",
        "pipeline.stages: got 9, must be at most 8, the number of model.layers",
    )


def test_the_network_is_made_once_and_is_no_part_of_the_job() -> None:
    """A plan needs it some twenty times; to build it each time for 10,000 layers took a second."""
    spec, same = parse_job(LARGEST), parse_job(LARGEST)
    document, dumped, code = spec.document(), spec.model_dump(), hash(spec)
    assert spec.model_spec() is spec.model_spec()
    assert (spec, hash(spec)) == (same, code)
    assert (spec.document(), spec.model_dump()) == (document, dumped)
    copied = pickle.loads(pickle.dumps(spec))
    assert (copied, copied.model_spec()) == (same, spec.model_spec())
    assert spec.replace(seed=8).model_spec().seed == 8
