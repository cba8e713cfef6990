"""Images by class as the data of a job: the shape of the input and the classes follow from them."""

from __future__ import annotations

import math

import numpy as np

from cluster.data.content import Arrays
from cluster.data.tables.preprocessing import Preprocessing, TargetRule
from coordinator.job.spec import JobSpec
from coordinator.texts import some
from stages.errors import InvalidData
from stages.losses import build_loss

TARGET = "class"
"""What the target of images is called."""


def fitted_to_images(spec: JobSpec, content: Arrays, source: str) -> JobSpec:
    """Return the job with what follows from its images: `model.input`, which is their shape if the first layer is
    `flatten`, else the number of their pixels, and `units: classes`. Raises InvalidData if the loss takes numbers."""
    assert content.shape is not None, "images have a shape"
    assert content.classes is not None, "these have classes"
    loss = spec.model.loss.spec()
    if not build_loss(loss).takes_labels:
        raise InvalidData(f"{source}: holds images by class, but {loss.kind} takes numbers; write loss: cross_entropy")
    flat = not spec.model.layers or spec.model.layers[0].kind != "flatten"
    fitted = spec.fitted([math.prod(content.shape)] if flat else content.shape, len(content.classes))
    outputs = fitted.model_spec().network.output.features
    if outputs != len(content.classes):
        raise InvalidData(
            f"{source}: holds {len(content.classes)} classes ({some(content.classes, 5)}), but the last layer gives "
            f"{outputs} outputs; write units: classes"
        )
    return fitted


def image_classes(content: Arrays) -> Preprocessing:
    """Return the rules that name the classes of images. Their pixels need none: they are numbers from 0 to 1."""
    return Preprocessing(inputs=(), target=TargetRule(names=(TARGET,), classes=content.classes))


def with_classes(content: Arrays, rules: Preprocessing | None, source: str) -> Arrays:
    """Return the images of another folder with the labels that the trained network has for the names of their classes.
    Raises InvalidData if it does not know one."""
    if content.classes is None or rules is None or rules.target.classes is None:
        return content
    known = {name: label for label, name in enumerate(rules.target.classes)}
    if unknown := [name for name in content.classes if name not in known]:
        raise InvalidData(
            f"{source}: the model knows no class {some(unknown, 5)}, only {some(rules.target.classes, 10)}"
        )
    labels = np.array([known[name] for name in content.classes], dtype=np.int64)
    assert isinstance(content.y, np.ndarray), "images by class have labels"
    return Arrays(
        x=content.x, y=labels[content.y], shape=content.shape, classes=rules.target.classes, said=content.said
    )
