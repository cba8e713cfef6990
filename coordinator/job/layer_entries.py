"""`model.layers` as pydantic models, made from the options that each kind of layer declares in its own file."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, Field, create_model

from coordinator.job.base_section import OneOf, Section, as_tuple
from stages.layers import KINDS, LayerSpec

LAYER_KINDS: tuple[str, ...] = tuple(KINDS)
CLASSES = "classes"
"""The value of `units` if it follows from the data."""


class LayerBase(OneOf):
    """One entry of `model.layers`: exactly one kind with its options; `relu` alone is short for `relu: {}`."""

    @classmethod
    def long_form(cls, kind: object, options: object) -> object:
        """`residual: [relu]` is short for `residual: {layers: [relu]}`."""
        takes_layers = kind in KINDS and "layers" in {f.name for f in fields(KINDS[str(kind)].options)}
        return {"layers": options} if isinstance(options, list) and takes_layers else options

    @property
    def is_open(self) -> bool:
        """Whether its units, or those of a layer in it, follow from the data."""
        options = self.chosen
        return getattr(options, "units", None) == CLASSES or any(layer.is_open for layer in _inner(options))

    def spec(self) -> LayerSpec:
        """Return the layer as workers receive it."""
        return LayerSpec(self.kind, plain_options(self.chosen, KINDS[self.kind].options))

    def document(self) -> object:
        """Return the layer as a job file has it, without options that are null by default."""
        options = self.chosen.model_dump()
        if inner := _inner(self.chosen):
            options["layers"] = [layer.document() for layer in inner]
            if len(options) == 1:
                return {self.kind: options["layers"]}
        for name, field in type(self.chosen).model_fields.items():
            if options[name] is None and field.default is None:
                del options[name]
        return {self.kind: options} if options else self.kind


def _inner(options: BaseModel) -> Any:
    return getattr(options, "layers", ())


def plain_options(section: BaseModel, kind: Any) -> Any:
    """Return a section as an object of the options class `kind`."""
    values: dict[str, Any] = {}
    hints = get_type_hints(kind)
    for field in fields(kind):
        value = getattr(section, field.name)
        if isinstance(value, BaseModel):
            value = plain_options(value, _dataclass_in(hints[field.name]))
        values[field.name] = tuple(layer.spec() for layer in value) if field.name == "layers" else value
    return kind(**values)


def _dataclass_in(annotation: Any) -> Any:
    return next((a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and is_dataclass(a)), None)


@cache
def section_of(kind: Any) -> type[Section]:
    """Return the options class `kind` as a section. The module gets it under its name, so that it can be pickled."""
    hints = get_type_hints(kind)
    made: dict[str, Any] = {f.name: _field(f, hints[f.name]) for f in fields(kind)}
    name = f"{kind.__name__}Section"
    section: type[Section] = create_model(name, __base__=Section, __module__=__name__, __doc__=kind.__doc__, **made)
    globals()[name] = section
    return section


def _field(field: Any, annotation: Any) -> tuple[Any, Any]:
    limits: Mapping[str, Any] = field.metadata["limits"]
    default = ... if field.default is MISSING else field.default
    if field.name == "layers":
        return (
            Annotated[tuple["LayerEntry", ...], BeforeValidator(as_tuple)],
            Field(min_length=1, description=field.metadata["right"]),
        )
    inner = _dataclass_in(annotation)
    if inner is not None:
        annotation = section_of(inner) | None if type(None) in get_args(annotation) else section_of(inner)
        return annotation, Field(default, description=field.metadata["right"])
    if limits and get_origin(annotation) in (Union, types.UnionType):
        number = next(a for a in get_args(annotation) if a is not type(None))
        return (
            Annotated[number, Field(**limits)] | None,
            Field(default, description=field.metadata["right"]),
        )
    if field.name == "units":
        number = Annotated[int, Field(**limits)]
        return number | Literal["classes"], Field(default, description=field.metadata["right"])
    extra: Any = {"choices": [*get_args(annotation)]} if get_origin(annotation) is Literal else None
    return annotation, Field(default, description=field.metadata["right"], json_schema_extra=extra, **limits)


_sections = {name: section_of(kind.options) for name, kind in KINDS.items()}
if TYPE_CHECKING:
    LayerEntry = LayerBase
else:
    _entries = {name: (section | None, None) for name, section in _sections.items()}
    LayerEntry = create_model(
        "LayerEntry", __base__=LayerBase, __module__=__name__, __doc__=LayerBase.__doc__, **_entries
    )
    for _section in _sections.values():
        _section.model_rebuild(_types_namespace={"LayerEntry": LayerEntry})
    LayerEntry.model_rebuild(force=True)
