"""Computes the answers to `Questions` with a trained run, block by block, and writes them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from cluster.data.files import AnyArray
from cluster.data.questions import Questions
from cluster.run.answer_files import replacing, table_writer
from cluster.run.answers import Answers
from cluster.run.saved_model import FinishedRun
from coordinator.train.inference import infer
from stages.errors import UserMistake

_BLOCK_NUMBERS = 2**24
"""About how many numbers of the widest layer are in memory at once."""


def answers_of(run: FinishedRun) -> Answers:
    """Return what the outputs of the run's network mean."""
    model = run.spec.model_spec()
    return Answers(model.loss_function, model.network.output.features, run.preprocessing)


def write_arrays(run: FinishedRun, asked: Questions, output: str) -> dict[str, AnyArray]:
    """Write an .npz file with the outputs y (rows, …), and for classes also `label` (rows,) and their names, `classes`.
    Rows without an answer have NaN and −1. Returns the arrays. Raises UserMistake."""
    model, answers = run.spec.model_spec(), answers_of(run)
    outputs, blocks = model.network.output.features, list[AnyArray]()
    for rows, found in _outputs(run, asked):
        shaped = found.reshape(len(rows.own), -1, outputs) if model.network.output.positions else found
        blocks.append(rows.spread(shaped if answers.classes is not None else answers.in_unit(shaped), np.nan))
    arrays = {"y": np.concatenate(blocks)}
    if answers.classes is not None:
        label = arrays["y"].argmax(axis=-1)
        label[np.isnan(arrays["y"]).any(axis=-1)] = -1
        arrays["label"] = label
        if not model.network.output.positions:
            arrays["classes"] = np.array(answers.classes)
    with replacing(output) as path, path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return arrays


def write_table(run: FinishedRun, asked: Questions, output: str) -> tuple[str, ...]:
    """Write a row of answers for each row: its key, and the columns of `Answers`. Returns the columns' names. Raises
    UserMistake."""
    import pyarrow as pa

    model = run.spec.model_spec()
    if model.network.output.positions:
        raise UserMistake(
            f"--output: {output} has one answer a row, but the network answers at each position; use .npz"
        )
    answers = answers_of(run)
    names = (asked.key if asked.key not in answers.names else f"{asked.key} (key)", *answers.names)
    keys = asked.keys if isinstance(asked.keys, pa.ChunkedArray) else pa.chunked_array([pa.array(asked.keys)])
    examples = answers.columns(np.zeros((1, model.network.output.features), dtype=model.precision))
    kinds = [pa.string() if one.dtype.kind == "U" else pa.from_numpy_dtype(one.dtype) for one in examples]
    schema = pa.schema(list(zip(names, (keys.type, *kinds), strict=True)))
    with table_writer(output, schema) as writer:
        for rows, found in _outputs(run, asked):
            own = pa.concat_arrays(keys.slice(rows.first, rows.n_rows).chunks)
            columns = zip(answers.columns(found), kinds, strict=True)
            spread = [pa.array(column, kind).take(rows.places) for column, kind in columns]
            writer.write(pa.record_batch([own, *spread], schema=schema))
    return names


class _Rows:
    """A block of an input's rows. `own` has the numbers, from the block's first row, of those that are answered."""

    def __init__(self, asked: Questions, first: int, after: int) -> None:
        self.first, self.n_rows = first, after - first
        self.answers = slice(*np.searchsorted(asked.answered, (first, after)))
        self.own = asked.answered[self.answers] - first

    @property
    def places(self) -> Any:
        """For each row the place of its answer among those of the block, as an array of Arrow; null if it has none."""
        import pyarrow as pa

        places, none = np.zeros(self.n_rows, dtype=np.int64), np.ones(self.n_rows, dtype=bool)
        places[self.own], none[self.own] = np.arange(len(self.own)), False
        return pa.array(places, mask=none)

    def spread(self, values: AnyArray, none: float) -> AnyArray:
        """Return the values (answers, …) as (rows, …), with `none` for rows without an answer."""
        spread: AnyArray = np.full((self.n_rows, *values.shape[1:]), none, dtype=values.dtype)
        spread[self.own] = values
        return spread


def _outputs(run: FinishedRun, asked: Questions) -> Iterator[tuple[_Rows, AnyArray]]:
    """Yield blocks of rows with the outputs (answers · positions, outputs) of those that are answered."""
    spec, model = run.spec, run.spec.model_spec()
    widest = max(math.prod(model.input_shape), *(op.layer.shape_out.numbers for op in model.network.ops))
    chunk = spec.training.evaluate_batch_size
    block = max(1, _BLOCK_NUMBERS // widest // chunk) * chunk
    for first in range(0, asked.n_rows, block):
        rows = _Rows(asked, first, min(first + block, asked.n_rows))
        none = [np.empty((model.network.output.features, 0), dtype=model.precision)]
        found = list(infer(model, run.parameter, asked.x[rows.answers], chunk)) or none
        yield rows, np.concatenate([part.T for part in found])
